create function set_updated_at() returns trigger language plpgsql as $$
begin
  new.updated_at = now();
  return new;
end
$$;
create trigger set_updated_at before update on messenger_integrations for each row execute function set_updated_at();
create trigger set_updated_at before update on whatsapp_sessions for each row execute function set_updated_at();
