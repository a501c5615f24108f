-- Optional, and applied by hand. Revokes the right of the browser roles (anon, authenticated) to read and write `settings`, which
-- holds a number's API key and token. A table-wide grant cannot exclude a column, so each such grant is replaced by a grant on the
-- other columns. A client that reads `select *` from messenger_integrations as a user stops working. The file is safe to apply
-- twice. If a role can still reach the column afterwards, the file fails with a sentence and changes nothing.

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
