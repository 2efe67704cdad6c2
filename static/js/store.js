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

/**
 * A yes or no that this browser remembers.
 *
 * @param {string} name
 * @param {boolean} usual while nothing was chosen
 */
export function readFlag(name, usual) {
	const stored = readStore('localStorage', `calliope.${name}`);
	return stored === null ? usual : stored === 'yes';
}

/**
 * @param {string} name
 * @param {boolean} on
 */
export function writeFlag(name, on) {
	writeStore('localStorage', `calliope.${name}`, on ? 'yes' : 'no');
}
