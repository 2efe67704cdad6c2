// @ts-check
/**
 * Every word the page says comes from /static/text/{language}.json: flat keys, `{name}` for what
 * is put in. early.js chooses the language; a new one is a new file and its tag there.
 */

/** @type {Record<string, string>} */
let words = {};

export async function loadText() {
	const answer = await fetch(`/static/text/${document.documentElement.lang}.json`);
	words = await answer.json();
}

/**
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function t(key, values = {}) {
	const text = words[key] ?? key;
	return text.replace(/\{(\w+)\}/g, (all, name) => String(values[name] ?? all));
}

/** @param {string} key */
export function hasText(key) {
	return key in words;
}

/**
 * Writes the words into a page's fixed elements: `data-text` is the content, `data-label` the
 * accessible name and tooltip, `data-placeholder` an input's hint.
 *
 * @param {ParentNode} root
 */
export function fillText(root) {
	/** @type {NodeListOf<HTMLElement>} */
	const elements = root.querySelectorAll('[data-text], [data-label], [data-placeholder]');
	for (const element of elements) {
		const { text, label, placeholder } = element.dataset;
		if (text) element.textContent = t(text);
		if (label) setLabel(element, label);
		if (placeholder) element.setAttribute('placeholder', t(placeholder));
	}
}

/**
 * @param {HTMLElement} element
 * @param {string} key
 */
export function setLabel(element, key) {
	const label = t(key);
	element.setAttribute('aria-label', label);
	const shortcut = element.getAttribute('aria-keyshortcuts');
	if (element instanceof HTMLButtonElement) {
		element.title = shortcut ? `${label} (${shortcut.toUpperCase()})` : label;
	}
}
