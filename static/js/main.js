// @ts-check
/** The page begins here: it shows the start page at `/`, and lobby and call at `/{room}`. */

import { byId, fillIcons } from './dom.js';
import { Lobby, sayProblem } from './lobby.js';
import { Devices } from './media.js';
import { Call, IceServers, Problem } from './protocol.js';
import { makeRoomName, readRoomName, Seat } from './rooms.js';
import { Sound } from './sound.js';
import { fillText, loadText, t } from './text.js';
import { startTheme } from './theme.js';

const SCREENS = ['start', 'lobby', 'call', 'ended'];

/** What `window.calliope` shows to tests and the curious before there is a call. */
const NO_CALL = Object.freeze({
	pc: null,
	phase: 'idle',
	you: '',
	participants: [],
	lastLayout: null,
	appliedLayout: null,
});

/** @param {string} name one of SCREENS */
function showScreen(name) {
	for (const screen of SCREENS) byId(`${screen}-screen`).hidden = screen !== name;
	document.documentElement.dataset.screen = name;
	// One switch for the whole page: it stands in the bar during a call, in the corner before.
	const theme = byId('theme');
	if (name === 'call') byId('info').append(theme);
	else document.body.append(theme);
}

/** @param {string} [problem] */
function openStart(problem = '') {
	/** @type {HTMLInputElement} */
	const input = byId('room-input');
	const note = byId('start-problem');
	/** @param {string} text */
	const complain = (text) => {
		note.textContent = text;
		note.hidden = !text;
		input.toggleAttribute('aria-invalid', Boolean(text));
	};
	byId('start').addEventListener('click', () => location.assign(`/${makeRoomName()}`));
	byId('room-form').addEventListener('submit', (event) => {
		event.preventDefault();
		const room = readRoomName(input.value);
		if (room) location.assign(`/${room}`);
		else complain(t(input.value.trim() ? 'start.bad_room' : 'start.no_room'));
		if (!room) input.focus();
	});
	input.addEventListener('input', () => complain(''));
	complain(problem);
	showScreen('start');
}

/** @param {string} room */
async function openRoom(room) {
	document.title = t('title.room', { room });
	const devices = new Devices();
	const ice = new IceServers();
	const seat = new Seat(room);
	/** @type {Call | null} */
	let call = null;
	/** @type {import('./call.js').CallScreen | undefined} */
	let callScreen;

	/** @param {Problem | null} problem why the call is over; null when the person left */
	const finish = (problem) => {
		call = null;
		callScreen?.detach();
		void devices.close();
		byId('ended-title').textContent = t(problem ? 'ended.title_problem' : 'ended.title');
		byId('ended-text').textContent = problem ? sayProblem(problem) : t('ended.text');
		showScreen('ended');
		byId('rejoin').focus();
	};

	Object.defineProperty(window, 'calliope', { get: () => callScreen?.debug ?? NO_CALL });

	const sound = new Sound(byId('sound-out'), byId('sound'));
	// The lobby is painted first; the call is fetched while one looks into the mirror.
	const loadCall = async () => {
		if (callScreen) return callScreen;
		const { CallScreen } = await import('./call.js');
		callScreen ??= new CallScreen({
			devices,
			sound,
			onLeave: () => {
				const leaving = call;
				finish(null);
				void leaving?.leave();
			},
		});
		return callScreen;
	};

	// What few open is loaded when it is opened.
	/** @type {Promise<import('./settings.js').Settings> | undefined} */
	let settings;
	const openSettings = async () => {
		settings ??= makeSettings();
		(await settings).open();
	};
	const makeSettings = async () => {
		const [{ Settings }, { getDialog }] = await Promise.all([
			import('./settings.js'),
			import('./dialogs.js'),
		]);
		const made = new Settings({ dialog: await getDialog('settings'), devices, sound });
		made.on('self', (hidden) => callScreen?.setHidesSelf(hidden));
		return made;
	};
	for (const id of ['lobby-settings', 'call-settings']) {
		byId(id).addEventListener('click', () => void openSettings());
	}

	const lobby = new Lobby({
		room,
		devices,
		onJoin: async (name) => {
			if (call) return;
			const joining = new Call({ room, name, seat, ice, h264First: isWebKit() });
			call = joining;
			lobby.setJoining(true);
			try {
				(await loadCall()).attach(joining);
				joining.on('phase', ({ phase, problem }) => {
					if (phase === 'ended' && problem && call === joining) finish(problem);
				});
				showScreen('call');
				byId('stage-area').focus();
				await joining.join();
			} catch (error) {
				if (call !== joining) return;
				call = null;
				callScreen?.detach();
				showScreen('lobby');
				// What is no Problem: the call's own modules could not be fetched.
				lobby.showProblem(error instanceof Problem ? error : new Problem('unreachable'));
			} finally {
				lobby.setJoining(false);
			}
		},
	});

	byId('rejoin').addEventListener('click', () => location.reload());
	byId('ended-start').addEventListener('click', () => location.assign('/'));
	addEventListener('pagehide', () => call?.abandon());
	addEventListener('pageshow', (event) => {
		// Brought back from the browser's cache after it had left: begin afresh.
		if (event.persisted) location.reload();
	});

	showScreen('lobby');
	lobby.setAsking(true);
	byId('name').focus();
	/** @param {() => Promise<unknown>} load asked for again when joining, if the server is away now */
	const tryNow = (load) => void load().catch(() => {});
	tryNow(() => ice.get());
	requestAnimationFrame(() => setTimeout(tryNow, 0, loadCall));
	await devices.open();
	lobby.setAsking(false);
}

/** Apple's engine, whatever browser is around it: H264 is what it encodes well. */
function isWebKit() {
	return navigator.vendor.startsWith('Apple');
}

async function start() {
	await loadText();
	fillIcons(document);
	fillText(document);
	startTheme(byId('theme'));
	const path = decodeURIComponent(location.pathname).replace(/^\/|\/$/g, '');
	const room = readRoomName(path);
	if (path === '') openStart();
	else if (room) await openRoom(room);
	else openStart(t('start.bad_room'));
}

await start();
