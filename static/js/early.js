// @ts-check
// Runs before the first paint, so that nobody sees the wrong theme flash by. See theme.js.
(() => {
	let chosen = null;
	try {
		chosen = localStorage.getItem('calliope.theme');
	} catch {
		// Storage is forbidden: follow the system.
	}
	const dark = matchMedia('(prefers-color-scheme: dark)').matches;
	const theme = chosen === 'light' || chosen === 'dark' ? chosen : dark ? 'dark' : 'light';
	document.documentElement.dataset.theme = theme;
})();
