-- What every Supabase project has before its first migration: the roles that PostgREST takes on, and the default
-- privileges as they were until 2026, generous enough that a migration must revoke what strangers may not do. Run at
-- every start.
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
grant usage on schema public to anon, authenticated, service_role;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
-- PostgreSQL's own default, which a project may have given up.
alter default privileges grant execute on functions to public;
