-- The roles of every Supabase project, to which PostgREST switches. Run at every start of a server.
do $$
declare
    missing text;
begin
    for missing in
        select wanted.role || ' ' || wanted.options
        from (values
            ('anon', 'nologin noinherit'),
            ('authenticated', 'nologin noinherit'),
            ('service_role', 'nologin noinherit bypassrls'),
            ('authenticator', 'login noinherit')
        ) as wanted (role, options)
        where not exists (select from pg_roles where rolname = wanted.role)
    loop
        execute 'create role ' || missing;
    end loop;
end
$$;
grant anon, authenticated, service_role to authenticator;
