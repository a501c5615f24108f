-- Optional, and applied by hand: takes `settings`, which holds every secret, from the roles that browsers use.
-- A column cannot be taken from a table-wide grant, so that grant is replaced by one on the other columns; a client
-- that reads `select *` from messenger_integrations as a user stops working. Applying it twice changes nothing else.

do $$
declare
  v_columns text;
begin
  select string_agg(quote_ident(a.attname), ', ' order by a.attnum) into v_columns
  from pg_attribute a
  where a.attrelid = 'public.messenger_integrations'::regclass
    and a.attnum > 0 and not a.attisdropped and a.attname <> 'settings';
  revoke select on public.messenger_integrations from anon, authenticated;
  execute format('grant select (%s) on public.messenger_integrations to authenticated', v_columns);
end
$$;
