// @ts-check
// Runs before the first paint: nobody sees the wrong theme flash by (see theme.js), and the words
// in the person's language are on their way at once (see text.js).
(() => {
	let chosen = null;
	try {
		chosen = localStorage.getItem('calliope.theme');
	} catch {
		// Storage is forbidden: follow the system.
	}
	const root = document.documentElement;
	const dark = matchMedia('(prefers-color-scheme: dark)').matches;
	root.dataset.theme = chosen === 'light' || chosen === 'dark' ? chosen : dark ? 'dark' : 'light';

	const spoken = ['en', 'de', 'es', 'fr', 'pt'];
	const wanted = navigator.languages.map((tag) => tag.toLowerCase().split('-')[0]);
	root.lang = wanted.find((tag) => spoken.includes(tag)) ?? 'en';
	const words = document.createElement('link');
	words.rel = 'preload';
	words.as = 'fetch';
	words.crossOrigin = 'anonymous';
	words.href = `/static/text/${root.lang}.json`;
	document.head.append(words);
})();
