-- One primary number per organisation. Where deployed rows break the rule, the oldest primary stays one, and each
-- row that loses the mark is named in a notice.

do $$
declare
  v_demoted record;
begin
  for v_demoted in
    update public.messenger_integrations i
    set is_primary = false
    where i.provider = 'wpp' and i.is_primary and exists (
      select from public.messenger_integrations older
      where older.organization_id = i.organization_id and older.provider = i.provider and older.is_primary
        and (coalesce(older.created_at, '-infinity'), older.id) < (coalesce(i.created_at, '-infinity'), i.id))
    returning i.id, i.organization_id
  loop
    raise notice 'number % of organisation % is no longer primary: an older one is', v_demoted.id, v_demoted.organization_id;
  end loop;
end
$$;

create unique index if not exists messenger_integrations_one_wpp_primary
  on public.messenger_integrations (organization_id, provider)
  where is_primary and provider = 'wpp';
