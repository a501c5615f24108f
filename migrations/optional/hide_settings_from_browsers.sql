-- Optional, and applied by hand: takes `settings`, which holds every secret, from the roles that browsers use, to read and to write.
-- A column cannot be taken from a table-wide grant, so each such grant is replaced by one on the other columns. A client
-- that reads `select *` from messenger_integrations as a user stops working. Applying it twice changes nothing else. If a role
-- still reaches the column in the end, the file fails with a sentence and changes nothing.

set lock_timeout = '5s';

do $$
declare
  v_role text;
  v_right text;
  v_columns text;
begin
  select string_agg(quote_ident(a.attname), ', ' order by a.attnum) into v_columns
  from pg_attribute a
  where a.attrelid = 'public.messenger_integrations'::regclass
    and a.attnum > 0 and not a.attisdropped and a.attname <> 'settings';
  foreach v_role in array '{anon,authenticated}'::text[] loop
    foreach v_right in array '{select,insert,update}'::text[] loop
      if has_table_privilege(v_role, 'public.messenger_integrations', v_right) then
        execute format('revoke %s on public.messenger_integrations from %I', v_right, v_role);
        execute format('grant %s (%s) on public.messenger_integrations to %I', v_right, v_columns, v_role);
      end if;
      execute format('revoke %s (settings) on public.messenger_integrations from %I', v_right, v_role);
      if has_column_privilege(v_role, 'public.messenger_integrations', 'settings', v_right) then
        raise exception '% may still % messenger_integrations.settings: %, then apply this file again.', v_role, v_right,
          'revoke the grant to PUBLIC, or to a role of which it is a member, or by another role';
      end if;
    end loop;
  end loop;
end
$$;

reset lock_timeout;
