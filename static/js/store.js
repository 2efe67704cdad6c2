// @ts-check
/** Storage that may be forbidden (blocked cookies, private windows) never breaks the page. */

/** @typedef {'localStorage' | 'sessionStorage'} StoreName */

/**
 * @param {StoreName} store
 * @param {string} key
 * @returns {string | null}
 */
export function readStore(store, key) {
  try {
    return globalThis[store].getItem(key);
  } catch {
    return null;
  }
}

/**
 * @param {StoreName} store
 * @param {string} key
 * @param {string | null} value null removes
 */
export function writeStore(store, key, value) {
  try {
    if (value === null) globalThis[store].removeItem(key);
    else globalThis[store].setItem(key, value);
  } catch {
    // Nothing is remembered then; everything else works.
  }
}
