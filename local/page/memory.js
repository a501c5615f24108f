// What survives a reload, in this tab alone. Nothing here is needed: a page without it begins anew.

const read = (name) => JSON.parse(sessionStorage.getItem(name) ?? 'null');

function write(name, value) {
  if (value === null) sessionStorage.removeItem(name);
  else sessionStorage.setItem(name, JSON.stringify(value));
}

const kept = (name) => ({ get: () => read(name), set: (value) => write(name, value) });

/** `{user, access_token, expires_at}` */
export const signIn = kept('sign-in');

/** The body of a `wpp-create` that was begun and has not been answered. */
export const intent = kept('intent');

/** The number that is looked at: `{id, session}`, either only where it is known. */
export const number = kept('number');
