-- What a signed-in user may read through PostgREST, as in the real product: the numbers of the user's organization, without the
-- secrets in `settings`. The file is safe to apply twice.
grant select (id, organization_id, messenger_type, provider, name, is_active, is_primary, created_at)
  on messenger_integrations to authenticated;

create or replace function own_organization() returns uuid
language sql stable security definer set search_path = ''
return (
  select p.organization_id from public.profiles p
  where p.id::text = current_setting('request.jwt.claims', true)::jsonb ->> 'sub');
grant execute on function own_organization() to authenticated;

drop policy if exists members on messenger_integrations;
create policy members on messenger_integrations for select to authenticated
  using (organization_id = own_organization());
notify pgrst, 'reload schema';
