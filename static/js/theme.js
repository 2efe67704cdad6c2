// @ts-check
/** Light or dark: as the system has it until the switch is pressed, from then on as chosen. */

import { readStore, writeStore } from './store.js';
import { t } from './text.js';

const KEY = 'calliope.theme';

/** @param {HTMLButtonElement} button */
export function startTheme(button) {
	const system = matchMedia('(prefers-color-scheme: dark)');
	const root = document.documentElement;
	const chosen = () => readStore('localStorage', KEY);
	/** @param {string} theme */
	const show = (theme) => {
		root.dataset.theme = theme;
		const label = t(theme === 'dark' ? 'theme.to_light' : 'theme.to_dark');
		button.setAttribute('aria-label', label);
		button.title = label;
	};
	show(root.dataset.theme ?? 'light');
	button.addEventListener('click', () => {
		const theme = root.dataset.theme === 'dark' ? 'light' : 'dark';
		// What agrees with the system is not a choice: the page goes on following it.
		writeStore('localStorage', KEY, theme === (system.matches ? 'dark' : 'light') ? null : theme);
		show(theme);
	});
	system.addEventListener('change', () => {
		if (!chosen()) show(system.matches ? 'dark' : 'light');
	});
}
