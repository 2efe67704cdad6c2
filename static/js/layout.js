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

/**
 * Does `layout` hold for the frame with this RTP timestamp? Both count modulo 2^32.
 *
 * @param {number} pts the layout's first frame
 * @param {number} rtpTimestamp the frame on the screen
 */
export function isDue(pts, rtpTimestamp) {
  const ahead = (pts - rtpTimestamp) | 0;
  return ahead <= 0 || ahead > HORIZON_S * VIDEO_CLOCK_HZ;
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
