// @ts-check
/** The call screen: joins the call, the devices, the picture, the chat and the people. */

import { Chat } from './chat.js';
import { byId, make, setOn } from './dom.js';
import { sayProblem, sayTrouble } from './lobby.js';
import { Menu } from './menu.js';
import { Panel } from './panel.js';
import { People } from './people.js';
import { Problem } from './protocol.js';
import { Quality } from './quality.js';
import { copyLink } from './rooms.js';
import { startShortcuts } from './shortcuts.js';
import { Stage } from './stage.js';
import { readFlag } from './store.js';
import { setLabel, t } from './text.js';
import { Views } from './views.js';

/** A name within a sentence keeps its own direction and leaves the sentence's alone (UAX #9). */
const isolate = (/** @type {string} */ name) => `\u2068${name}\u2069`;

/** @typedef {import('./media.js').Devices} Devices */
/** @typedef {import('./protocol.js').Call} Call */
/** @typedef {import('./protocol.js').Participant} Participant */

const TOAST_MS = 5000;
const TOASTS = 3;

export class CallScreen {
	#status = byId('status');
	#panel = new Panel();
	#menu = new Menu();
	#views = new Views();
	#quality = new Quality();
	/** @type {Promise<import('./stats.js').Stats> | null} */
	#stats = null;
	#people = new People({
		list: byId('people-list'),
		search: byId('people-search'),
	});
	#chat = new Chat({
		log: byId('chat-log'),
		form: byId('chat-form'),
		input: byId('chat-input'),
	});
	/** @type {HTMLVideoElement} */
	#video = byId('stage');
	#sound;
	#stage;
	#devices;
	/** @type {Call | null} */
	#call = null;
	/** @type {Map<string, Participant>} */
	#participants = new Map();
	#you = '';
	#pictureShown = false;
	#title = '';
	/** @type {ReturnType<typeof setInterval> | undefined} */
	#countdown = undefined;
	/** Says that one talks while muted. @type {Promise<import('./reminder.js').Reminder> | null} */
	#reminder = null;
	#talking = false;

	/**
	 * @param {{devices: Devices, sound: import('./sound.js').Sound, onLeave: () => void}} parts
	 */
	constructor({ devices, sound, onLeave }) {
		this.#devices = devices;
		this.#sound = sound;
		this.#stage = new Stage({
			picture: byId('picture'),
			video: this.#video,
			tiles: byId('tiles'),
			onWhole: () => void this.#toggleFullscreen(),
			onPin: (view, id, width) => this.#views.setPinned(view, id, width),
			onStopScreen: () => this.#call?.stopScreen(),
			onTurn: () => this.#call?.cameraTurned(),
			onPicture: () => {
				this.#pictureShown = true;
				this.#showStatus();
			},
		});
		byId('mute').addEventListener('click', () => void devices.setMicrophone(!devices.microphoneOn));
		byId('camera').addEventListener('click', () => void devices.setCamera(!devices.cameraOn));
		byId('leave').addEventListener('click', onLeave);
		for (const id of ['copy-link', 'alone-copy']) {
			byId(id).addEventListener('click', async () => this.#toast(await copyLink()));
		}
		for (const id of ['invite-open', 'alone-invite']) {
			byId(id).addEventListener('click', async () => (await import('./invite.js')).openInvite());
		}
		for (const id of ['screen', 'menu-screen']) {
			byId(id).addEventListener('click', () => void this.#toggleScreen());
			byId(id).hidden = !navigator.mediaDevices?.getDisplayMedia;
		}
		for (const id of ['hand', 'menu-hand']) byId(id).addEventListener('click', () => this.#toggleHand());
		for (const id of ['stats-toggle', 'quality']) {
			byId(id).addEventListener('click', () => void this.#toggleStats());
		}
		byId('fullscreen').addEventListener('click', () => void this.#toggleFullscreen());
		byId('pip').hidden = !document.pictureInPictureEnabled;
		byId('pip').addEventListener('click', () => void this.#togglePictureInPicture());
		this.#menu.on('reaction', (emoji) => this.#call?.send({ type: 'reaction', emoji }));
		this.#menu.on('view', (name) => this.#views.choose(name));
		this.#views.on('ask', (name) => this.#call?.send({ type: 'view', name }));
		this.#people.on('volume', ({ id, gain }) => this.#call?.send({ type: 'volume', id, gain }));
		this.setHidesSelf(readFlag('hide_self', false));
		startShortcuts({
			active: () => this.#call !== null && readFlag('shortcuts', true),
			talk: (on) => {
				// Only who is muted is unmuted for a moment, and muted again.
				if (on === devices.microphoneOn || (!on && !this.#talking)) return;
				this.#talking = on;
				void devices.setMicrophone(on);
			},
		});
		document.addEventListener('visibilitychange', () => void this.#keepAwake());
		devices.on('change', () => void this.#devicesChanged());
		this.#panel.on('change', (name) => this.#chat.setVisible(name === 'chat'));
		this.#chat.on('send', (request) => {
			request.sent = this.#call?.send({ type: 'chat', text: request.text }) ?? false;
		});
		this.#chat.on('unread', (count) => this.#showUnread(count));
	}

	/** @param {boolean} hidden is one's own picture kept from oneself? */
	setHidesSelf(hidden) {
		this.#stage.setHidesSelf(hidden);
	}

	/** What tests and the curious may look at. */
	get debug() {
		const screen = this;
		return Object.freeze({
			get pc() {
				return screen.#call?.pc ?? null;
			},
			get phase() {
				return screen.#call?.phase ?? 'idle';
			},
			get you() {
				return screen.#you;
			},
			get participants() {
				return [...screen.#participants.values()].map((person) => ({ ...person }));
			},
			get lastLayout() {
				return structuredClone(screen.#stage.lastLayout);
			},
			get appliedLayout() {
				return structuredClone(screen.#stage.appliedLayout);
			},
		});
	}

	/**
	 * @param {Call} call
	 */
	attach(call) {
		this.#call = call;
		this.#title = document.title;
		this.#pictureShown = false;
		byId('room-name').textContent = call.room;
		this.#panel.show(null);
		call.on('phase', (state) => this.#showStatus(state));
		call.on('media', ({ audio, video }) => {
			this.#stage.setPicture(video);
			this.#sound.play(audio);
		});
		call.on('welcome', (message) => this.#welcome(message));
		call.on('history', ({ chat }) => this.#chat.remember(chat));
		call.on('joined', ({ participant }) => {
			const known = this.#participants.has(participant.id);
			this.#participants.set(participant.id, participant);
			this.#showPeople();
			if (!known && participant.id !== this.#you) this.#toast(t('people.joined', { name: isolate(participant.name) }));
		});
		call.on('updated', ({ participant }) => {
			this.#participants.set(participant.id, participant);
			this.#showPeople();
		});
		call.on('left', ({ id }) => {
			const person = this.#participants.get(id);
			this.#participants.delete(id);
			this.#showPeople();
			if (person && id !== this.#you) this.#toast(t('people.left', { name: isolate(person.name) }));
		});
		call.on('chat', (line) => {
			this.#chat.add(line);
			if (line.from === this.#you) return;
			if (document.hidden && readFlag('notify', false)) void import('./notify.js').then(({ notify }) => notify(line));
			if (this.#panel.open !== 'chat') {
				this.#toast(t('chat.toast', { name: isolate(line.name), text: line.text }));
			}
		});
		call.on('speaking', ({ ids }) => {
			this.#setSpeaking(new Set(ids));
		});
		call.on('layout', (layout) => this.#stage.announce(layout));
		call.on('reaction', ({ id, emoji }) => {
			this.#stage.react(id, emoji);
			const name = this.#participants.get(id)?.name;
			if (name) this.#toast(t('people.reacted', { name: isolate(name), emoji }));
		});
		call.on('screen', ({ problem }) => {
			this.#showScreen();
			if (problem) this.#toast(sayProblem(problem));
		});
		call.on('error', ({ code, reason }) => {
			if (code === 'draining') this.#say(t('problem.draining'));
			else this.#toast(reason || t('problem.unknown'));
		});
		this.#quality.attach(call);
		this.#showScreen();
		void this.#devicesChanged();
		void this.#keepAwake();
	}

	/** Forgets the call: nothing of it stays on the screen. */
	detach() {
		this.#call = null;
		this.#participants = new Map();
		this.#you = '';
		clearInterval(this.#countdown);
		this.#stage.clear();
		this.#chat.clear();
		this.#people.clear();
		this.#sound.play(null);
		this.#views.clear();
		this.#quality.detach();
		this.#stats = null;
		byId('stats').hidden = true;
		byId('stats-list').replaceChildren();
		this.#menu.show(false);
		void this.#watchMuted(null);
		if (document.fullscreenElement) void document.exitFullscreen();
		if (document.pictureInPictureElement) void document.exitPictureInPicture();
		byId('alone').hidden = true;
		byId('toasts').replaceChildren();
		document.title = this.#title;
		void this.#keepAwake();
	}

	/**
	 * @param {{you: string, participants: Participant[], layout: import('./layout.js').Layout | null,
	 *   chat: import('./protocol.js').ChatLine[]}} message
	 */
	#welcome({ you, participants, layout, chat }) {
		this.#you = you;
		this.#participants = new Map(participants.map((person) => [person.id, person]));
		this.#stage.setYou(you);
		this.#stage.announce(layout);
		// Whoever spoke when the last connection ended may be silent now: that is not said again.
		this.#setSpeaking(new Set());
		this.#chat.remember(chat ?? [], you);
		// Not before: until the channel speaks, nothing that is written would arrive.
		this.#chat.setConnected(true);
		this.#showPeople();
		if (this.#views.asked !== 'auto') this.#call?.send({ type: 'view', name: this.#views.asked });
		for (const { id, gain } of this.#people.gains) this.#call?.send({ type: 'volume', id, gain });
	}

	/** @param {Set<string>} ids all who speak now */
	#setSpeaking(ids) {
		this.#stage.setSpeaking(ids);
		this.#people.setSpeaking(ids);
		this.#views.setSpeaking(ids);
	}

	#showPeople() {
		const count = this.#participants.size;
		this.#people.show(this.#participants, this.#you);
		this.#stage.setPeople(this.#participants);
		byId('people-count').textContent = count ? String(count) : '';
		byId('people-toggle').setAttribute('aria-label', t('people.count', { count }));
		const hand = this.#call?.state.hand ?? false;
		setOn(byId('hand'), hand);
		setLabel(byId('hand'), hand ? 'call.hand_down' : 'call.hand_up');
		byId('menu-hand').lastElementChild?.replaceChildren(t(hand ? 'call.hand_down' : 'call.hand_up'));
		byId('alone').hidden = !(count === 1 && this.#participants.has(this.#you));
	}

	async #devicesChanged() {
		const devices = this.#devices;
		const microphoneOn = devices.microphoneOn;
		const cameraOn = devices.cameraOn;
		setOn(byId('mute'), microphoneOn);
		setOn(byId('camera'), cameraOn);
		setLabel(byId('mute'), microphoneOn ? 'call.mute' : 'call.unmute');
		setLabel(byId('camera'), cameraOn ? 'call.camera_off' : 'call.camera_on');
		byId('mute').toggleAttribute('data-trouble', devices.trouble('microphone') !== null);
		byId('camera').toggleAttribute('data-trouble', devices.trouble('camera') !== null);
		const call = this.#call;
		if (!call || call.phase === 'ended') return;
		const trouble = sayTrouble(devices);
		if (trouble && trouble !== byId('status').dataset.trouble) this.#toast(trouble);
		byId('status').dataset.trouble = trouble;
		this.#stage.setOwnCamera(cameraOn ? devices.camera : null);
		void this.#watchMuted(microphoneOn ? null : devices.microphone);
		const state = call.state;
		// The words go first, so that nobody sees a still picture or hears the last syllable.
		if (state.muted === microphoneOn) call.setState({ muted: !microphoneOn });
		if (state.camera && !cameraOn) call.setState({ camera: false });
		await Promise.all([call.setMicrophone(devices.microphone), call.setCamera(devices.camera)]);
		if (!call.state.camera && this.#devices.cameraOn) call.setState({ camera: true });
		const me = this.#participants.get(this.#you);
		if (!me) return;
		// One's own marks do not wait for the server's answer.
		this.#participants.set(me.id, { ...me, ...call.state });
		this.#showPeople();
	}

	#toggleHand() {
		const call = this.#call;
		if (!call) return;
		call.setState({ hand: !call.state.hand });
		const me = this.#participants.get(this.#you);
		if (me) this.#participants.set(me.id, { ...me, ...call.state });
		this.#showPeople();
	}

	async #toggleScreen() {
		const call = this.#call;
		if (!call) return;
		if (call.sharing) {
			call.stopScreen();
			return;
		}
		let stream;
		try {
			stream = await navigator.mediaDevices.getDisplayMedia({
				video: { width: { max: 2560 }, height: { max: 1440 }, frameRate: { ideal: 15, max: 30 } },
				audio: true,
			});
		} catch (error) {
			// Closing the question is an answer, not a failure.
			const refused = error instanceof DOMException && error.name === 'NotAllowedError';
			if (!refused) this.#toast(sayProblem(new Problem('screen_failed')));
			return;
		}
		const [track] = stream.getVideoTracks();
		if (!track || this.#call !== call) {
			for (const each of stream.getTracks()) each.stop();
			return;
		}
		track.contentHint = 'detail';
		track.addEventListener('ended', () => call.stopScreen());
		await call.shareScreen(stream);
	}

	#showScreen() {
		const on = this.#call?.sharing ?? false;
		setOn(byId('screen'), on);
		setLabel(byId('screen'), on ? 'call.screen_stop' : 'call.screen');
		byId('menu-screen').lastElementChild?.replaceChildren(t(on ? 'call.screen_stop' : 'call.screen'));
	}

	async #toggleStats() {
		const call = this.#call;
		if (!call) return;
		this.#stats ??= import('./stats.js').then(({ Stats }) => new Stats(call, this.#quality));
		(await this.#stats).toggle();
	}

	async #toggleFullscreen() {
		const stage = /** @type {HTMLElement} */ (byId('picture').parentElement);
		/** @type {HTMLVideoElement & {webkitEnterFullscreen?: () => void}} */
		const video = this.#video;
		try {
			if (document.fullscreenElement) await document.exitFullscreen();
			else if (stage.requestFullscreen) await stage.requestFullscreen();
			else video.webkitEnterFullscreen?.(); // iPhones give it to videos alone
		} catch {
			// Not allowed here (in a frame, say): the picture stays as it is.
		}
	}

	async #togglePictureInPicture() {
		try {
			if (document.pictureInPictureElement) await document.exitPictureInPicture();
			else await this.#video.requestPictureInPicture();
		} catch {
			// No picture yet, or not allowed: nothing changes.
		}
	}

	/** @param {MediaStreamTrack | null} track what is muted, null when nothing is */
	async #watchMuted(track) {
		if (!track && !this.#reminder) return;
		this.#reminder ??= import('./reminder.js').then(
			({ Reminder }) => new Reminder(() => this.#toast(t('call.muted_talk'))),
		);
		(await this.#reminder).watch(track);
	}

	/**
	 * @param {{phase: string, problem: import('./protocol.js').Problem | null, retryAtMs: number}} [state]
	 */
	#showStatus({ phase, problem, retryAtMs } = { phase: this.#call?.phase ?? 'idle', problem: null, retryAtMs: 0 }) {
		clearInterval(this.#countdown);
		if (phase !== 'connected' && phase !== 'unstable') this.#chat.setConnected(false);
		byId('call-screen').dataset.phase = phase;
		if (phase === 'reconnecting') {
			this.#pictureShown = false;
			const why = problem && problem.code !== 'lost' ? sayProblem(problem) : t('status.lost');
			const show = () => {
				const seconds = Math.ceil((retryAtMs - Date.now()) / 1000);
				const then = seconds > 1 ? t('status.retry_in', { seconds }) : t('status.retrying');
				this.#say(`${why} ${then}`);
			};
			show();
			this.#countdown = setInterval(show, 1000);
		} else if (phase === 'unstable') {
			this.#say(t('status.unstable'));
		} else if (phase === 'joining') {
			this.#say(t('status.connecting'));
		} else if (phase === 'connected' && !this.#pictureShown) {
			this.#say(t('status.waiting_picture'));
		} else {
			this.#say('');
		}
	}

	/** @param {string} text */
	#say(text) {
		if (this.#status.textContent !== text) this.#status.textContent = text;
		this.#status.hidden = !text;
	}

	/** @param {string} text */
	#toast(text) {
		const toasts = byId('toasts');
		const toast = make('p', 'toast', text);
		toast.dir = 'auto';
		toasts.append(toast);
		while (toasts.childElementCount > TOASTS) toasts.firstElementChild?.remove();
		setTimeout(() => toast.remove(), TOAST_MS);
	}

	/** @param {number} count */
	#showUnread(count) {
		byId('chat-unread').textContent = count ? String(Math.min(count, 99)) : '';
		setLabel(byId('chat-toggle'), 'panel.chat');
		if (count) byId('chat-toggle').setAttribute('aria-label', t('chat.unread', { count }));
		if (this.#call) document.title = count ? `(${count}) ${this.#title}` : this.#title;
	}

	/** @type {WakeLockSentinel | null} */
	#wakeLock = null;

	/** A call keeps the screen on, as long as one looks at it. */
	async #keepAwake() {
		if (!this.#call) {
			await this.#wakeLock?.release().catch(() => {});
			this.#wakeLock = null;
		} else if (document.visibilityState === 'visible' && (!this.#wakeLock || this.#wakeLock.released)) {
			this.#wakeLock = (await navigator.wakeLock?.request('screen').catch(() => null)) ?? null;
		}
	}
}
