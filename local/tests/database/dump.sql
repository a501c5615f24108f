-- Everything that a migration could change in `public` and in `wpp_internal`, except the rows.
select jsonb_build_object(
  'columns', (
    select jsonb_agg(to_jsonb(c) order by c.table_name, c.ordinal_position)
    from information_schema.columns c where c.table_schema = 'public'),
  'tables', (
    select jsonb_agg(jsonb_build_array(c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relacl) order by c.relname)
    from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'),
  'indexes', (
    select jsonb_agg(i.indexdef order by i.indexdef) from pg_indexes i where i.schemaname = 'public'),
  'constraints', (
    select jsonb_agg(jsonb_build_array(c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid))
      order by c.conrelid::regclass::text, c.conname)
    from pg_constraint c where c.connamespace = 'public'::regnamespace),
  'policies', (
    select jsonb_agg(to_jsonb(p) order by p.tablename, p.policyname) from pg_policies p where p.schemaname = 'public'),
  'functions', (
    select jsonb_agg(jsonb_build_array(pg_get_functiondef(p.oid), p.proacl) order by pg_get_functiondef(p.oid))
    from pg_proc p where p.pronamespace::regnamespace::text in ('public', 'wpp_internal')))
