// @ts-check
/** The few helpers with which the page's parts build elements. Text is only ever text. */

/**
 * @template {Element} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
	const element = document.getElementById(id);
	if (!element) throw new Error(`The page has no element #${id}`);
	return /** @type {T} */ (/** @type {unknown} */ (element));
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [className]
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, className = '', ...children) {
	const element = document.createElement(tag);
	if (className) element.className = className;
	element.append(...children);
	return element;
}

const SVG = 'http://www.w3.org/2000/svg';

/**
 * One of the icons that stand in index.html, drawn 24 units wide.
 *
 * @param {string} name
 * @param {string} [label] what it says to those who do not see it; without one it is decoration
 */
export function icon(name, label = '') {
	const svg = document.createElementNS(SVG, 'svg');
	svg.setAttribute('class', 'icon');
	svg.setAttribute('viewBox', '0 0 24 24');
	if (label) {
		svg.setAttribute('role', 'img');
		svg.setAttribute('aria-label', label);
	} else {
		svg.setAttribute('aria-hidden', 'true');
	}
	const use = document.createElementNS(SVG, 'use');
	use.setAttribute('href', `#i-${name}`);
	svg.append(use);
	return svg;
}

/**
 * Puts the icons into a page's fixed elements: `data-icon` for one, `data-icon-on` and the like
 * for those of which one at a time is shown.
 *
 * @param {ParentNode} root
 */
export function fillIcons(root) {
	for (const state of ['', '-on', '-off', '-dark', '-light']) {
		for (const element of root.querySelectorAll(`[data-icon${state}]`)) {
			const svg = icon(element.getAttribute(`data-icon${state}`) ?? '');
			if (state) svg.classList.add(`if${state}`);
			element.prepend(svg);
		}
	}
}

/**
 * The letters that stand for a person without a picture.
 *
 * @param {string} name
 */
export function initials(name) {
	const words = name.trim().split(/\s+/).filter(Boolean);
	const first = words.length > 1 ? [words[0], words[words.length - 1]] : words.slice(0, 1);
	// A zero-width non-joiner keeps the letters of joined scripts apart: these are no words.
	return first.map((word) => firstLetter(word).toLocaleUpperCase()).join('\u200c') || '?';
}

/** @param {string} word */
function firstLetter(word) {
	if (!('Segmenter' in Intl)) return [...word][0] ?? '';
	const [segment] = new Intl.Segmenter(undefined, { granularity: 'grapheme' }).segment(word);
	return segment?.segment ?? '';
}

/** The colours of the discs in the composed picture (calliope/mixer/theme.py). */
const DISCS = [
	'#5b6b8c', '#4f7a6b', '#8a5a5a', '#7a6396', '#94703f',
	'#3f7f8c', '#8c5579', '#66753f', '#5560a0', '#9a5f45',
];

/**
 * CRC-32 (ISO 3309) of a text's UTF-8 bytes: what the server picks a disc's colour by.
 *
 * @param {string} text
 */
export function crc32(text) {
	let crc = 0xffffffff;
	for (const byte of new TextEncoder().encode(text)) {
		crc ^= byte;
		for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return (crc ^ 0xffffffff) >>> 0;
}

/**
 * A disc with initials, of the colour that the server gives this person too.
 *
 * @param {string} name
 * @param {string} id
 */
export function avatar(name, id) {
	const disc = make('span', 'avatar', initials(name));
	disc.setAttribute('aria-hidden', 'true');
	disc.style.backgroundColor = DISCS[crc32(id) % DISCS.length];
	return disc;
}

/**
 * Pressed or not, for a switch that shows one icon for each.
 *
 * @param {HTMLElement} button
 * @param {boolean} on
 */
export function setOn(button, on) {
	button.dataset.on = String(on);
}
