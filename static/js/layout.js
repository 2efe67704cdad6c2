// @ts-check
/**
 * Which rectangle of the composed picture is whose, and from which frame on: pure functions.
 *
 * @typedef {{id: string, source: 'camera' | 'screen', x: number, y: number, w: number, h: number,
 *   fit: 'crop' | 'contain'}} Tile in canvas pixels
 * @typedef {{view: string, serial: number, pts: number, canvas: [number, number],
 *   tiles: Tile[]}} Layout
 */

const VIDEO_CLOCK_HZ = 90_000;
/** A layout that claims to begin later than this is one whose clock has wrapped: it holds now. */
const HORIZON_S = 30;
/** Timestamps may be rounded on their way through other clocks; frames are thousands apart. */
const SLACK = 90;

/**
 * Does `layout` hold for the frame with this RTP timestamp? Both count modulo 2^32.
 *
 * @param {number} pts the layout's first frame
 * @param {number} rtpTimestamp the frame on the screen
 */
export function isDue(pts, rtpTimestamp) {
	const ahead = (pts - rtpTimestamp) | 0;
	return ahead <= SLACK || ahead > HORIZON_S * VIDEO_CLOCK_HZ;
}

/**
 * The newest of the waiting layouts that holds for a frame, and those that still wait.
 *
 * @param {Layout[]} waiting oldest first
 * @param {number} rtpTimestamp
 * @returns {{due: Layout | null, waiting: Layout[]}}
 */
export function takeDue(waiting, rtpTimestamp) {
	for (let i = waiting.length - 1; i >= 0; i -= 1) {
		if (isDue(waiting[i].pts, rtpTimestamp)) {
			return { due: waiting[i], waiting: waiting.slice(i + 1) };
		}
	}
	return { due: null, waiting };
}

/**
 * A tile's place in percent of the picture, so that it follows every resize by itself.
 *
 * @param {Tile} tile
 * @param {[number, number]} canvas
 */
export function placeTile(tile, [width, height]) {
	return {
		left: `${(tile.x / width) * 100}%`,
		top: `${(tile.y / height) * 100}%`,
		width: `${(tile.w / width) * 100}%`,
		height: `${(tile.h / height) * 100}%`,
	};
}

/**
 * One tile of the picture as a part of the whole, 0 to 1, and its shape: what a pin enlarges.
 *
 * @param {Tile} tile
 * @param {[number, number]} canvas
 */
export function focusOn(tile, [width, height]) {
	return {
		x: tile.x / width,
		y: tile.y / height,
		w: tile.w / width,
		h: tile.h / height,
		shape: tile.w / tile.h / (width / height),
	};
}

/**
 * The sizes that the server draws a tile's name and marks with (calliope/mixer/overlay.py), in
 * canvas pixels, so that what the page draws again over the own tile looks the same.
 *
 * @param {Tile} tile
 */
export function measureMarks(tile) {
	const text = even(Math.min(Math.max(11 + tile.h * 0.05, 12), 36));
	return {
		text,
		margin: Math.max(4, even(text * 0.3)),
		border: tile.h < 300 ? 2 : 4,
		disc: even(Math.min(tile.w, tile.h) * 0.46),
	};
}

/** @param {number} value */
function even(value) {
	return Math.floor(value / 2) * 2;
}

/**
 * How much the encoder shall shrink a camera so that it sends at most what the server asked for.
 *
 * @param {{width?: number, height?: number}} camera the size it captures
 * @param {{width: number, height: number}} uplink the size that is wanted at most
 * @returns {number} for `scaleResolutionDownBy`, never below 1
 */
export function shrinkBy(camera, uplink) {
	if (!camera.width || !camera.height || !uplink.width || !uplink.height) return 1;
	return Math.max(1, camera.width / uplink.width, camera.height / uplink.height);
}
