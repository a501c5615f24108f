// What survives a reload. None of it is required: if the browser stores nothing, the page starts over.

/** Stores a value under `name`, as JSON: only in this tab, or for later visits, too. */
function kept(name, storage = 'sessionStorage') {
  let value = null;
  try {
    value = JSON.parse(globalThis[storage].getItem(name));
  } catch {
    // There is no storage, or the value is not from this page.
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

/** The body of an unanswered `wpp-create`. */
export const intent = kept('intent');

/** The number on the card: `{id, session}`, each only if it is known. */
export const number = kept('number');

/** The chosen language: `en` or `ru`. */
export const language = kept('language', 'localStorage');
