// @ts-check
/**
 * The composed picture and what lies over it: one element for every tile, exactly where the
 * server put it, and the own camera over the own tile, mirrored and without delay.
 */

import { avatar, icon, make } from './dom.js';
import { focusOn, measureMarks, placeTile, takeDue } from './layout.js';
import { t } from './text.js';

/** @typedef {import('./layout.js').Layout} Layout */
/** @typedef {import('./layout.js').Tile} Tile */
/** @typedef {import('./protocol.js').Participant} Participant */

/** A picture that stands still for so long no longer decides when a layout begins. */
const FROZEN_MS = 3000;
const REACTION_MS = 3500;
const WHOLE = { x: 0, y: 0, w: 1, h: 1, shape: 1 };

export class Stage {
	#picture;
	#video;
	#tiles;
	/** @type {Map<string, HTMLElement>} */
	#elements = new Map();
	/** @type {Layout[]} */
	#waiting = [];
	/** @type {Layout | null} */
	#applied = null;
	/** @type {Layout | null} */
	#last = null;
	/** @type {Map<string, Participant>} */
	#people = new Map();
	/** @type {Set<string>} */
	#speaking = new Set();
	#you = '';
	/** @type {HTMLVideoElement} */
	#own;
	#ownCover = make('span', 'own-cover');
	#ownHand = make('span', 'hand-mark', icon('hand'));
	/** @type {ReturnType<typeof setTimeout> | undefined} */
	#frozen = undefined;
	#countsFrames;
	#aspect = 0;
	#hidesSelf = false;
	/** The key of the tile that is enlarged, for this person alone. @type {string | null} */
	#pinned = null;
	#onWhole;
	#onPin;
	#onStopScreen;

	/**
	 * @param {{picture: HTMLElement, video: HTMLVideoElement, tiles: HTMLElement,
	 *   onTurn: () => void, onPicture: () => void, onWhole: () => void,
	 *   onPin: (view: string, id: string, width: number) => void,
	 *   onStopScreen: () => void}} parts `onTurn`: the camera has another shape, `onPicture`: the
	 *   first frame is there, `onWhole`: full screen is wanted, `onPin`: in this view that camera is
	 *   enlarged, of such a width in the picture ('' and 0 for none, or the own)
	 */
	constructor({ picture, video, tiles, onTurn, onPicture, onWhole, onPin, onStopScreen }) {
		this.#onWhole = onWhole;
		this.#onPin = onPin;
		this.#onStopScreen = onStopScreen;
		this.#picture = picture;
		this.#video = video;
		this.#tiles = tiles;
		this.#own = make('video', 'own-video');
		this.#own.id = 'own-video';
		this.#own.muted = true;
		this.#own.playsInline = true;
		this.#own.autoplay = true;
		this.#own.disablePictureInPicture = true;
		this.#own.setAttribute('aria-hidden', 'true');
		// A phone that is turned changes the camera's shape in the middle of the call.
		this.#own.addEventListener('resize', onTurn);
		video.addEventListener('resize', () => this.#fitPicture(video.videoWidth, video.videoHeight));
		video.addEventListener('loadeddata', onPicture);
		this.#countsFrames = 'requestVideoFrameCallback' in video;
		if (this.#countsFrames) this.#watchFrames();
	}

	/** The layout that was announced last. */
	get lastLayout() {
		return this.#last;
	}

	/** The layout of the frame on the screen. */
	get appliedLayout() {
		return this.#applied;
	}

	/** @param {MediaStreamTrack | null} track the composed picture as received */
	setPicture(track) {
		this.#waiting = [];
		this.#video.srcObject = track && new MediaStream([track]);
		this.#video.play().catch(() => {
			// Muted video starts by itself; if not now, then with the next gesture.
		});
	}

	/** @param {MediaStreamTrack | null} track the own camera, null while it is off */
	setOwnCamera(track) {
		const now = /** @type {MediaStream | null} */ (this.#own.srcObject)?.getVideoTracks()[0] ?? null;
		if (now !== track) this.#own.srcObject = track && new MediaStream([track]);
		this.#own.hidden = track === null;
		this.#showOwn();
	}

	/** @param {boolean} hidden is one's own picture kept from oneself? */
	setHidesSelf(hidden) {
		this.#hidesSelf = hidden;
		this.#showOwn();
	}

	/**
	 * Lets an emoji rise over somebody's tile.
	 *
	 * @param {string} id
	 * @param {string} emoji
	 */
	react(id, emoji) {
		const element = this.#elements.get(`camera:${id}`);
		if (!element) return;
		const mark = make('span', 'reaction', emoji);
		mark.setAttribute('aria-hidden', 'true');
		mark.style.setProperty('--drift', `${Math.round(Math.random() * 40 - 20)}%`);
		element.append(mark);
		setTimeout(() => mark.remove(), REACTION_MS);
	}

	/** @param {string} id */
	setYou(id) {
		this.#you = id;
		this.#redraw();
	}

	/** @param {Map<string, Participant>} people */
	setPeople(people) {
		this.#people = people;
		for (const [key, element] of this.#elements) this.#describe(key, element);
		this.#showOwn();
	}

	/** @param {Set<string>} ids */
	setSpeaking(ids) {
		this.#speaking = ids;
		for (const element of this.#elements.values()) {
			element.toggleAttribute('data-speaking', ids.has(element.dataset.tileId ?? ''));
		}
	}

	/** @param {Layout | null} layout as announced; it is shown with the frame that carries it */
	announce(layout) {
		if (!layout) return;
		this.#last = layout;
		if (!this.#countsFrames) {
			this.#apply(layout);
			return;
		}
		this.#waiting.push(layout);
		clearTimeout(this.#frozen);
		this.#frozen = setTimeout(() => this.#applyLast(), FROZEN_MS);
	}

	clear() {
		clearTimeout(this.#frozen);
		this.#waiting = [];
		this.#applied = null;
		this.#last = null;
		this.#you = '';
		this.#pinned = null;
		this.#people = new Map();
		this.#speaking = new Set();
		this.#video.srcObject = null;
		this.#own.srcObject = null;
		this.#redraw();
	}

	#watchFrames() {
		this.#video.requestVideoFrameCallback((_now, metadata) => {
			this.#watchFrames();
			// The shape changes with this frame; the `resize` event may come later.
			this.#fitPicture(metadata.width, metadata.height);
			if (this.#waiting.length === 0) return;
			if (metadata.rtpTimestamp === undefined) {
				this.#applyLast();
				return;
			}
			const { due, waiting } = takeDue(this.#waiting, metadata.rtpTimestamp);
			this.#waiting = waiting;
			if (due) this.#apply(due);
		});
	}

	#applyLast() {
		const layout = this.#waiting.pop();
		this.#waiting = [];
		if (layout) this.#apply(layout);
	}

	/**
	 * @param {number} width of the received frame
	 * @param {number} height
	 */
	#fitPicture(width, height) {
		const aspect = width / height;
		if (!(aspect > 0) || aspect === this.#aspect) return;
		this.#aspect = aspect;
		this.#picture.style.setProperty('--aspect', String(aspect));
	}

	/** @param {Layout} layout */
	#apply(layout) {
		if (this.#waiting.length === 0) clearTimeout(this.#frozen);
		this.#applied = layout;
		this.#redraw();
	}

	#redraw() {
		const tiles = this.#applied?.tiles ?? [];
		const canvas = this.#applied?.canvas ?? [1280, 720];
		const keys = new Set(tiles.map(keyOf));
		for (const [key, element] of this.#elements) {
			if (keys.has(key)) continue;
			element.remove();
			this.#elements.delete(key);
		}
		this.#tiles.style.setProperty('--canvas', String(canvas[0]));
		for (const tile of tiles) {
			const key = keyOf(tile);
			let element = this.#elements.get(key);
			if (!element) {
				element = this.#makeTile(key, tile);
				this.#elements.set(key, element);
				// Never moved later: a video that is moved in the document stops playing.
				this.#tiles.append(element);
			}
			Object.assign(element.style, placeTile(tile, canvas));
			for (const [name, size] of Object.entries(measureMarks(tile))) {
				element.style.setProperty(`--${name}`, String(size));
			}
			element.dataset.fit = tile.fit;
			element.toggleAttribute('data-small', tile.w < canvas[0] / 6);
			element.toggleAttribute('data-speaking', this.#speaking.has(tile.id));
			this.#describe(key, element);
		}
		this.#showOwn();
		this.#showPin();
	}

	/**
	 * @param {string} key
	 * @param {Tile} tile
	 */
	#makeTile(key, tile) {
		const button = make('button', 'tile-button', make('span', 'visually-hidden'));
		button.type = 'button';
		button.addEventListener('click', () => {
			this.#pinned = this.#pinned === key ? null : key;
			this.#showPin();
		});
		button.addEventListener('dblclick', () => this.#onWhole());
		const plate = make('span', 'plate');
		plate.setAttribute('aria-hidden', 'true');
		const element = make('li', 'tile', plate, button);
		element.dataset.tileId = tile.id;
		element.dataset.source = tile.source;
		return element;
	}

	/** Enlarges the pinned tile until it fills the stage, or shows the whole picture. */
	#showPin() {
		const layout = this.#applied;
		const tile = layout?.tiles.find((each) => keyOf(each) === this.#pinned);
		// The speaker view has not everybody in it, and is not for long (see views.js).
		const awaited = layout?.view === 'speaker' && this.#pinned && this.#people.has(idOf(this.#pinned));
		if (!tile && !awaited) this.#pinned = null;
		const focus = layout && tile ? focusOn(tile, layout.canvas) : WHOLE;
		for (const [name, value] of Object.entries(focus)) {
			this.#picture.style.setProperty(`--focus-${name}`, String(value));
		}
		this.#picture.toggleAttribute('data-pinned', Boolean(tile));
		for (const [key, element] of this.#elements) {
			element.querySelector('button')?.setAttribute('aria-pressed', String(key === this.#pinned));
			// What is out of sight is not to be reached by the Tab key either.
			element.inert = tile !== undefined && key !== this.#pinned;
		}
		const other = tile?.source === 'camera' && tile.id !== this.#you;
		this.#onPin(layout?.view ?? '', other ? tile.id : '', other ? focus.w : 0);
	}

	/**
	 * @param {string} key
	 * @param {HTMLElement} element
	 */
	#describe(key, element) {
		const person = this.#people.get(element.dataset.tileId ?? '');
		const words = [person?.name ?? ''];
		if (element.dataset.tileId === this.#you) words.push(t('people.you'));
		if (element.dataset.source === 'screen') words.push(t('people.screen'));
		if (person?.muted) words.push(t('people.muted'));
		if (person && !person.camera && element.dataset.source === 'camera') words.push(t('people.camera_off'));
		if (person?.hand) words.push(t('people.hand'));
		const text = words.filter(Boolean).join(', ');
		const label = /** @type {HTMLElement} */ (element.querySelector('.visually-hidden'));
		if (label.textContent !== text) {
			label.textContent = text;
			const plate = /** @type {HTMLElement} */ (element.querySelector('.plate'));
			plate.replaceChildren(make('bdi', 'plate-name', person?.name ?? ''));
			if (person?.muted) plate.prepend(icon('mic-off'));
		}
		// One's own screen in the picture of it, in the picture of it: a card stands there instead.
		const mine = key === `screen:${this.#you}`;
		const card = element.querySelector('.own-screen');
		if (mine && !card) element.append(this.#makeScreenCard());
		if (!mine) card?.remove();
	}

	#makeScreenCard() {
		const stop = make('button', 'primary', t('call.screen_stop'));
		stop.type = 'button';
		stop.addEventListener('click', () => this.#onStopScreen());
		return make('div', 'own-screen', make('p', '', t('screen.own')), stop);
	}

	/** Lays the own camera, or the own avatar while it is off, over the own tile. */
	#showOwn() {
		const element = this.#you ? this.#elements.get(`camera:${this.#you}`) : undefined;
		const me = this.#people.get(this.#you);
		for (const [, other] of this.#elements) {
			if (other !== element && other.id === 'own-tile') other.removeAttribute('id');
		}
		if (!element) {
			this.#own.remove();
			this.#ownCover.remove();
			this.#ownHand.remove();
			return;
		}
		element.id = 'own-tile';
		const name = me?.name ?? '';
		this.#ownCover.hidden = !this.#own.hidden && !this.#hidesSelf;
		if (this.#ownCover.dataset.name !== name) {
			this.#ownCover.dataset.name = name;
			this.#ownCover.replaceChildren(avatar(name, this.#you));
		}
		this.#ownHand.hidden = !me?.hand;
		if (this.#own.parentNode !== element) {
			element.prepend(this.#own, this.#ownCover, this.#ownHand);
			// A video that was moved in the document has stopped.
			this.#own.play().catch(() => {});
		}
	}
}

/** @param {Tile} tile */
function keyOf(tile) {
	return `${tile.source}:${tile.id}`;
}

/** @param {string} key */
function idOf(key) {
	return key.slice(key.indexOf(':') + 1);
}
