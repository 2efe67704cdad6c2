// @ts-check
/**
 * The server's protocol (docs/protocol.md), without any page around it: signalling over HTTP, the
 * peer connection, the control channel, and a call that comes back by itself after a loss.
 *
 * @typedef {{id: string, name: string, muted: boolean, camera: boolean, screen: boolean,
 *   hand: boolean}} Participant
 * @typedef {{id: number, from: string, name: string, text: string, at: number}} ChatLine
 * @typedef {{muted: boolean, camera: boolean, hand: boolean}} OwnState
 * @typedef {{source: string, width: number, height: number, fps: number, kbps: number}} Uplink
 * @typedef {'idle' | 'joining' | 'connected' | 'unstable' | 'reconnecting' | 'ended'} Phase
 * @typedef {{load(): Promise<string | null>, save(secret: string): void, forget(): void}} SeatStore
 */

import { Emitter } from './emitter.js';
import { shrinkBy } from './layout.js';
import { PathWatch } from './path.js';

const CONNECT_S = 15;
const ANSWER_S = 5;
/** The browser calls a path disconnected after seconds of silence; it is soon replaced then. */
const UNSTABLE_S = 1;
const RETRY_S = [0, 1, 2, 3, 5];
/** Codes after which trying again cannot help. */
const FINAL = new Set(['bad_room', 'bad_name', 'bad_offer', 'forbidden', 'unauthorized', 'room_full', 'unsupported']);
/** Reasons given by the server on the control channel after which the page stays away. */
const DISMISSED = new Set(['taken_over', 'removed', 'forbidden']);

/** Why something could not be done: the server's problem+json, or a code of this page's own. */
export class Problem extends Error {
	/**
	 * @param {string} code stable, for programs
	 * @param {string} [detail] a sentence for people, as far as the server gave one
	 * @param {{status?: number, retryAfterS?: number}} [more]
	 */
	constructor(code, detail = '', { status = 0, retryAfterS = 0 } = {}) {
		super(detail || code);
		this.code = code;
		this.detail = detail;
		this.status = status;
		this.retryAfterS = retryAfterS;
	}
}

/**
 * @param {Response} answer
 * @returns {Promise<Problem>}
 */
async function readProblem(answer) {
	const retryAfterS = Number(answer.headers.get('Retry-After')) || 0;
	/** @type {{code?: string, detail?: string}} */
	const body = await answer.json().catch(() => ({}));
	const code = body.code ?? (answer.status === 503 ? 'unavailable' : 'unreachable');
	return new Problem(code, body.detail, { status: answer.status, retryAfterS });
}

/** Whether the server answers; false when it is out of reach, or for long. */
async function answers() {
	const signal = AbortSignal.timeout(ANSWER_S * 1000);
	return fetch('/healthz', { cache: 'no-store', signal }).then(() => true, () => false);
}

/**
 * @param {string | URL} url
 * @param {RequestInit} [options]
 */
async function request(url, options) {
	let answer;
	try {
		answer = await fetch(url, options);
	} catch {
		throw new Problem('unreachable');
	}
	if (!answer.ok) throw await readProblem(answer);
	return answer;
}

/** The ICE servers for this browser, asked for once and again when their time is over. */
export class IceServers {
	/** @type {Promise<RTCIceServer[]> | null} */
	#servers = null;
	#until = 0;

	get() {
		if (!this.#servers || performance.now() >= this.#until) {
			this.#until = Infinity;
			this.#servers = this.#load();
		}
		return this.#servers;
	}

	async #load() {
		try {
			const answer = await (await request('/api/ice')).json();
			this.#until = performance.now() + 900 * (answer.ttl ?? 3600);
			return answer.iceServers ?? [];
		} catch (problem) {
			this.#servers = null;
			throw problem;
		}
	}
}

/**
 * Puts the codecs the server speaks first and leaves out those it does not: VP8, but on Apple's
 * WebKit H264, which has a hardware encoder there and a weak software one for VP8.
 *
 * @param {RTCRtpTransceiver} transceiver
 * @param {boolean} h264First
 */
function preferCodecs(transceiver, h264First) {
	const codecs = RTCRtpReceiver.getCapabilities?.('video')?.codecs ?? [];
	const order = h264First ? ['video/h264', 'video/vp8'] : ['video/vp8', 'video/h264'];
	order.push('video/rtx');
	const spoken = codecs
		.filter((codec) => order.includes(codec.mimeType.toLowerCase()))
		.sort((a, b) => order.indexOf(a.mimeType.toLowerCase()) - order.indexOf(b.mimeType.toLowerCase()));
	try {
		if (spoken.length > 0) transceiver.setCodecPreferences(spoken);
	} catch {
		// An old browser: its own order is fine too.
	}
}

/** One peer connection: offered once, never renegotiated, thrown away after a loss. */
class Session extends Emitter {
	#ufragAndPassword = '';
	#mediaLine = '';
	/** @type {RTCIceCandidate[]} */
	#candidates = [];
	/** @type {URL | null} */
	#location = null;
	/** @type {Uplink | null} */
	#uplink = null;
	/** @type {Promise<void>} */
	#applying = Promise.resolve();
	/** What it said before anybody was ready to hear it. @type {[string, unknown][] | null} */
	#early = [];
	#over = false;

	/**
	 * @param {{iceServers: RTCIceServer[], h264First: boolean, screen?: boolean}} options a screen
	 *   is only sent, and its owner's channel speaks for it
	 */
	constructor({ iceServers, h264First, screen = false }) {
		super();
		const direction = screen ? 'sendonly' : 'sendrecv';
		this.screen = screen;
		this.pc = new RTCPeerConnection({ iceServers, bundlePolicy: 'max-bundle' });
		this.channel = screen ? null : this.pc.createDataChannel('calliope', { ordered: true });
		this.audio = this.pc.addTransceiver('audio', { direction });
		this.video = this.pc.addTransceiver('video', { direction });
		preferCodecs(this.video, h264First);
		this.pc.addEventListener('connectionstatechange', () => this.#emit('path', this.pc.connectionState));
		this.pc.addEventListener('icecandidate', ({ candidate }) => {
			if (candidate?.candidate) this.#trickle(candidate);
		});
		this.channel?.addEventListener('open', () => this.#emit('open'));
		this.channel?.addEventListener('close', () => this.#emit('closed'));
		this.channel?.addEventListener('message', ({ data }) => this.#read(data));
	}

	get secret() {
		return this.#location?.pathname.split('/').pop() ?? '';
	}

	/**
	 * @param {string} type
	 * @param {unknown} [detail]
	 */
	#emit(type, detail) {
		if (this.#over) return;
		if (this.#early) this.#early.push([type, detail]);
		else this.emit(type, detail);
	}

	/**
	 * From now on it is listened to, from its first word. On a busy machine the connection is up and
	 * has spoken before setRemoteDescription() says that it is done.
	 */
	begin() {
		const early = this.#early ?? [];
		this.#early = null;
		for (const [type, detail] of early) this.#emit(type, detail);
	}

	/** @param {unknown} data */
	#read(data) {
		let message;
		try {
			message = JSON.parse(String(data));
		} catch {
			return;
		}
		if (message && typeof message.type === 'string') this.#emit('message', message);
	}

	/**
	 * @param {{room: string, name: string, previous: string | null}} seat
	 */
	async open({ room, name, previous }) {
		const offer = await this.pc.createOffer();
		const sdp = offer.sdp ?? '';
		await this.pc.setLocalDescription(offer);
		this.#ufragAndPassword = (sdp.match(/^a=ice-(?:ufrag|pwd):.*$/gm) ?? []).slice(0, 2).join('\r\n');
		this.#mediaLine = /^m=.*$/m.exec(sdp)?.[0] ?? '';
		const query = new URLSearchParams(this.screen ? { source: 'screen' } : name ? { name } : {});
		/** @type {Record<string, string>} */
		const headers = { 'Content-Type': 'application/sdp' };
		if (previous) headers['Calliope-Session'] = previous;
		const answer = await request(`/api/rooms/${encodeURIComponent(room)}/sessions?${query}`, {
			method: 'POST',
			headers,
			body: sdp,
			cache: 'no-store',
			signal: AbortSignal.timeout(CONNECT_S * 1000),
		});
		this.#location = new URL(answer.headers.get('Location') ?? '', answer.url);
		await this.pc.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
		this.#sendCandidates();
	}

	/**
	 * The server finds this browser by its checks. Only addresses that checks alone may not reach it
	 * from (a relay, the outside of a NAT) are told.
	 *
	 * @param {RTCIceCandidate} candidate
	 */
	#trickle(candidate) {
		if (candidate.type === 'host' || (candidate.sdpMLineIndex ?? 0) !== 0) return;
		this.#candidates.push(candidate);
		if (this.#location) this.#sendCandidates();
	}

	#sendCandidates() {
		if (!this.#location || this.#candidates.length === 0) return;
		const mid = this.#candidates[0].sdpMid ?? '0';
		const lines = [this.#ufragAndPassword, this.#mediaLine.trim(), `a=mid:${mid}`];
		for (const { candidate } of this.#candidates.splice(0)) lines.push(`a=${candidate}`);
		request(this.#location, {
			method: 'PATCH',
			headers: { 'Content-Type': 'application/trickle-ice-sdpfrag' },
			body: `${lines.join('\r\n')}\r\n`,
		}).catch(() => {
			// The path by checks stands without it; if none does, the connection says so.
		});
	}

	/** @param {object} message */
	send(message) {
		if (this.channel?.readyState !== 'open') return false;
		this.channel.send(JSON.stringify(message));
		return true;
	}

	/** @param {Uplink} uplink */
	limit(uplink) {
		this.#uplink = uplink;
		this.applyUplink();
	}

	/** Tells the encoder what the server wants, for the camera as it is now (it may have turned). */
	applyUplink() {
		this.#applying = this.#applying
			.then(() => this.#setEncoding())
			.catch(() => {
				// Not settable just now (not negotiated, or closed); the next uplink message sets it.
			});
	}

	async #setEncoding() {
		const uplink = this.#uplink;
		const { sender } = this.video;
		if (!uplink || this.#over) return;
		const parameters = sender.getParameters();
		const encoding = parameters.encodings?.[0];
		if (!encoding) return;
		// A screen is read: rather fewer frames than blurred letters.
		if (this.screen) parameters.degradationPreference = 'maintain-resolution';
		encoding.active = uplink.kbps > 0;
		if (uplink.kbps > 0) {
			encoding.maxBitrate = uplink.kbps * 1000;
			encoding.scaleResolutionDownBy = shrinkBy(sender.track?.getSettings() ?? {}, uplink);
			if (uplink.fps > 0) encoding.maxFramerate = uplink.fps;
		}
		await sender.setParameters(parameters);
	}

	/** Stops listening: whatever this connection still says is of no interest any more. */
	mute() {
		this.#over = true;
	}

	close() {
		this.#over = true;
		this.pc.close();
	}

	/** Gives the seat back; `keepalive` lets it through while the page goes away. */
	async remove() {
		this.send({ type: 'bye' });
		if (!this.#location) return;
		await fetch(this.#location, { method: 'DELETE', keepalive: true }).catch(() => {
			// The server is gone, and so is the seat.
		});
	}
}

/**
 * A call as a person knows it: it lasts over losses of the connection.
 *
 * Emits `phase` {phase, problem, retryAtMs}, `media` {audio, video} (the received tracks, anew with each
 * connection), `screen` {on, problem}, and each message of the server under its own type.
 */
export class Call extends Emitter {
	/** @type {Session | null} */
	#session = null;
	/** @type {Phase} */
	#phase = 'idle';
	/** @type {OwnState} */
	#state = { muted: true, camera: false, hand: false };
	/** @type {Session | null} */
	#screen = null;
	/** What is shared, also while the connection is away. @type {MediaStream | null} */
	#shared = null;
	/** @type {MediaStreamTrack | null} */
	#camera = null;
	/** @type {MediaStreamTrack | null} */
	#microphone = null;
	/** @type {ReturnType<typeof setTimeout> | undefined} */
	#unstable = undefined;
	/** @type {(() => void) | null} */
	#hurry = null;
	/** @type {Problem | null} */
	#farewell = null;
	/** The secret of the newest seat this page was given. @type {string | null} */
	#secret = null;
	#watch = new PathWatch();
	#online = () => {
		this.#watch.doubt();
		this.#hurry?.();
	};

	/**
	 * @param {{room: string, name: string, seat: SeatStore, ice: IceServers, h264First?: boolean}} options
	 */
	constructor({ room, name, seat, ice, h264First = false }) {
		super();
		this.room = room;
		this.name = name;
		this.seat = seat;
		this.ice = ice;
		this.h264First = h264First;
	}

	get phase() {
		return this.#phase;
	}

	/** The peer connection of now, for those who measure. */
	get pc() {
		return this.#session?.pc ?? null;
	}

	get state() {
		return { ...this.#state };
	}

	/** Takes a seat. @throws {Problem} when that cannot be done; nothing is left behind then. */
	async join() {
		if (typeof RTCPeerConnection === 'undefined') throw new Problem('unsupported');
		this.#setPhase('joining');
		globalThis.addEventListener?.('online', this.#online);
		try {
			this.#secret = await this.seat.load();
			await this.#connect();
		} catch (problem) {
			this.#end();
			throw problem;
		}
	}

	/** Leaves for good. */
	async leave() {
		const session = this.#session;
		this.#end();
		this.seat.forget();
		await session?.remove();
		session?.close();
	}

	get sharing() {
		return this.#shared !== null;
	}

	/**
	 * Sends a screen (and its sound, where the browser gives it) beside the camera.
	 *
	 * @param {MediaStream} stream stopped when the sharing ends
	 * @throws {Problem}
	 */
	async shareScreen(stream) {
		this.stopScreen();
		this.#shared = stream;
		await this.#openScreen();
	}

	/** @param {Problem | null} [problem] why it ends, when nobody asked for it */
	stopScreen(problem = null) {
		if (!this.#shared) return;
		for (const track of this.#shared.getTracks()) track.stop();
		this.#shared = null;
		const screen = this.#screen;
		this.#screen = null;
		screen?.mute();
		void screen?.remove().then(() => screen.close());
		this.emit('screen', { on: false, problem });
	}

	async #openScreen() {
		const stream = this.#shared;
		this.#screen?.close();
		this.#screen = null;
		if (!stream || !this.#secret) return;
		try {
			const iceServers = await this.ice.get();
			if (this.#shared !== stream) return;
			const screen = new Session({ iceServers, h264First: this.h264First, screen: true });
			this.#screen = screen;
			await this.#put(screen.video, stream.getVideoTracks()[0] ?? null);
			await this.#put(screen.audio, stream.getAudioTracks()[0] ?? null);
			screen.on('path', (state) => {
				const gone = state === 'failed' || state === 'closed';
				// When the call itself is away, the screen is opened again with it.
				if (gone && this.#screen === screen && this.#phase === 'connected') {
					this.stopScreen(new Problem('screen_lost'));
				}
			});
			await screen.open({ room: this.room, name: this.name, previous: this.#secret });
			screen.begin();
			this.emit('screen', { on: true, problem: null });
		} catch (raw) {
			const problem = raw instanceof Problem ? raw : new Problem('unknown', String(raw));
			if (this.#shared === stream) this.stopScreen(problem);
		}
	}

	/**
	 * Says goodbye while the page is being taken away.
	 */
	abandon() {
		const session = this.#session;
		this.#end();
		this.seat.forget();
		void session?.remove();
	}

	/** @param {MediaStreamTrack | null} track */
	async setCamera(track) {
		this.#camera = track;
		await this.#put(this.#session?.video, track);
		this.#session?.applyUplink();
	}

	/** @param {MediaStreamTrack | null} track */
	async setMicrophone(track) {
		this.#microphone = track;
		await this.#put(this.#session?.audio, track);
	}

	/** The camera's shape changed (a phone was turned): send the right size again. */
	cameraTurned() {
		this.#session?.applyUplink();
	}

	/** @param {Partial<OwnState>} change */
	setState(change) {
		this.#state = { ...this.#state, ...change };
		this.send({ type: 'state', ...change });
	}

	/**
	 * @param {{type: string} & Record<string, unknown>} message
	 * @returns {boolean} false while there is no connection; the message is not kept
	 */
	send(message) {
		return this.#session?.send(message) ?? false;
	}

	/** @param {Session} session */
	#putBoth(session) {
		return Promise.all([
			this.#put(session.audio, this.#microphone),
			this.#put(session.video, this.#camera),
		]);
	}

	/**
	 * @param {RTCRtpTransceiver | undefined} transceiver
	 * @param {MediaStreamTrack | null} track
	 */
	async #put(transceiver, track) {
		try {
			await transceiver?.sender.replaceTrack(track);
		} catch {
			// The connection closed meanwhile; the next one begins with this track.
		}
	}

	/**
	 * @param {Phase} phase
	 * @param {{problem?: Problem | null, retryAtMs?: number}} [more]
	 */
	#setPhase(phase, { problem = null, retryAtMs = 0 } = {}) {
		this.#phase = phase;
		this.emit('phase', { phase, problem, retryAtMs });
	}

	#ended() {
		return this.#phase === 'ended';
	}

	/**
	 * One try for a connection, with a bound on its time. The old connection is closed only after
	 * the new one has the seat: closing it earlier would give the seat away.
	 */
	async #connect() {
		const previous = this.#secret;
		const old = this.#session;
		old?.mute();
		const iceServers = await this.ice.get().catch(() => []);
		const session = new Session({ iceServers, h264First: this.h264First });
		/** @type {ReturnType<typeof setTimeout> | undefined} */
		let timer;
		try {
			await this.#putBoth(session);
			// Media without the control channel is no call: nobody would be named, nothing said.
			const connected = new Promise((resolve, reject) => {
				const fail = () => reject(new Problem('no_connection'));
				timer = setTimeout(fail, CONNECT_S * 1000);
				session.on('open', () => resolve(undefined));
				session.on('closed', fail);
				session.on('path', (state) => {
					if (state === 'failed' || state === 'closed') fail();
				});
			});
			connected.catch(() => {});
			this.#listen(session);
			await session.open({ room: this.room, name: this.name, previous });
			if (this.#ended()) throw new Problem('left');
			this.#secret = session.secret;
			this.seat.save(session.secret);
			this.#session = session;
			old?.close();
			this.emit('media', { audio: session.audio.receiver.track, video: session.video.receiver.track });
			// Everything that it says is about this picture, and is answered on its own channel.
			session.begin();
			// They may have been changed while there was no connection to change them on.
			await this.#putBoth(session);
			await connected;
			if (this.#ended()) throw new Problem('left');
			if (session.channel?.readyState !== 'open') throw new Problem('no_connection');
			this.#setPhase('connected');
			this.#watch.follow(session.pc, answers, () => this.#lost(session, new Problem('lost')));
			if (this.#shared) void this.#openScreen();
		} catch (problem) {
			session.mute();
			// A seat that was taken over stays kept for the next try; a fresh one is given back.
			if (this.#ended() || previous === null) void session.remove();
			session.close();
			if (this.#session === session) this.#session = null;
			throw problem instanceof Problem ? problem : new Problem('unknown', String(problem));
		} finally {
			clearTimeout(timer);
		}
	}

	/** @param {Session} session */
	#listen(session) {
		session.on('path', (state) => {
			clearTimeout(this.#unstable);
			if (this.#session !== session || this.#ended()) return;
			if (state === 'connected' && this.#phase === 'unstable') this.#setPhase('connected');
			if (state === 'disconnected' && this.#phase === 'connected') {
				this.#setPhase('unstable');
				this.#unstable = setTimeout(() => this.#lost(session, new Problem('lost')), UNSTABLE_S * 1000);
			}
			if (state === 'failed' || state === 'closed') this.#lost(session, new Problem('lost'));
		});
		session.on('open', () => session.send({ type: 'state', ...this.#state }));
		session.on('closed', () => this.#lost(session, this.#farewell ?? new Problem('lost')));
		session.on('message', (message) => {
			if (message.type === 'uplink') (message.source === 'screen' ? this.#screen : session)?.limit(message);
			if (message.type === 'error' && (message.code === 'draining' || DISMISSED.has(message.code))) {
				this.#farewell = new Problem(message.code, message.reason);
			}
			this.emit(message.type, message);
		});
	}

	/**
	 * @param {Session} session
	 * @param {Problem} problem
	 */
	#lost(session, problem) {
		clearTimeout(this.#unstable);
		if (this.#session !== session || !['connected', 'unstable'].includes(this.#phase)) return;
		this.#watch.stop();
		this.#farewell = null;
		if (DISMISSED.has(problem.code)) {
			session.close();
			this.seat.forget();
			this.#end(problem);
		} else {
			void this.#reconnect(problem);
		}
	}

	/** @param {Problem} problem */
	async #reconnect(problem) {
		for (let attempt = 0; !this.#ended(); attempt += 1) {
			const waitS = Math.max(RETRY_S[Math.min(attempt, RETRY_S.length - 1)], problem.retryAfterS);
			// Not everybody of a full room at the same instant when its server comes back.
			const waitMs = waitS * 1000 * (1 + 0.3 * Math.random());
			this.#setPhase('reconnecting', { problem, retryAtMs: Date.now() + waitMs });
			await this.#wait(waitMs);
			if (this.#ended()) return;
			try {
				await this.#connect();
				return;
			} catch (raw) {
				problem = /** @type {Problem} */ (raw);
				if (FINAL.has(problem.code)) {
					this.#session?.close();
					this.seat.forget();
					this.#end(problem);
				}
			}
		}
	}

	/**
	 * Waits, but no longer than until the machine is online again.
	 *
	 * @param {number} ms
	 */
	#wait(ms) {
		return new Promise((resolve) => {
			const timer = setTimeout(resolve, ms);
			this.#hurry = () => {
				clearTimeout(timer);
				resolve(undefined);
			};
		});
	}

	/** @param {Problem | null} [problem] */
	#end(problem = null) {
		if (this.#ended()) return;
		clearTimeout(this.#unstable);
		this.#watch.stop();
		globalThis.removeEventListener?.('online', this.#online);
		this.stopScreen();
		this.#setPhase('ended', { problem });
		this.#hurry?.();
		this.#hurry = null;
	}
}
