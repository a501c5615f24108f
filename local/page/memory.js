// What survives a reload. Nothing here is needed: a page whose browser stores nothing begins anew.

/** A value that is stored under `name`, as JSON: in this tab alone, or for every later visit too. */
function kept(name, storage = 'sessionStorage') {
  let value = null;
  try {
    value = JSON.parse(globalThis[storage].getItem(name));
  } catch {
    // There is no storage, or the value is not ours.
  }
  return {
    get: () => value,
    set: (next) => {
      value = next;
      try {
        if (next === null) globalThis[storage].removeItem(name);
        else globalThis[storage].setItem(name, JSON.stringify(next));
      } catch {
        // The value lasts as long as the page.
      }
    },
  };
}

/** `{user, access_token, expires_at}` */
export const signIn = kept('sign-in');

/** The body of a `wpp-create` that was begun and has not been answered. */
export const intent = kept('intent');

/** The number on the card: `{id, session}`, either only if it is known. */
export const number = kept('number');

/** The language that was chosen: `en` or `ru`. */
export const language = kept('language', 'localStorage');
