/* oxlint-disable -- plain JavaScript: most rules here ask for types */
/** A WebSocket server (RFC 6455), as much of it as an echo needs: every frame goes back as it came, without its mask. */
import { createHash } from 'node:crypto';

const KEY_SUFFIX = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const [CLOSE, PING, PONG] = [0x88, 0x89, 0x8a];
const PROTOCOL_ERROR = 1002;
const TOO_LARGE = 1009;

/** Takes a connection over: what Node calls an `upgrade` listener. `first` is what came after the request's head. */
export function echoWebSocket(request, socket, first) {
  const accept = createHash('sha1').update(`${request.headers['sec-websocket-key']}${KEY_SUFFIX}`).digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n');
  socket.write(`sec-websocket-accept: ${accept}\r\n\r\n`);
  let pending = Buffer.alloc(0);
  const receive = (chunk) => {
    pending = Buffer.concat([pending, chunk]);
    for (let answer = answerFrame(pending); answer !== undefined; answer = answerFrame(pending)) {
      pending = pending.subarray(answer.end);
      if (answer.isLast) return socket.off('data', receive).resume().end(answer.frame);
      if (!socket.write(answer.frame)) socket.pause(); // Until the client has read what it got.
    }
  };
  socket.on('drain', () => socket.resume());
  socket.on('end', () => socket.end());
  socket.on('error', () => {}); // `close` follows: nothing is left to do.
  socket.on('data', receive);
  socket.unshift(first);
}

/** The answer to the first frame of `bytes`, and where the next one begins; undefined while the frame is not whole. */
function answerFrame(bytes) {
  const short = bytes[1] & 0x7f; // The length of the body; 126 where 16 bits follow that say it, 127 where 64 do.
  const maskAt = short < 126 ? 2 : 4;
  if (bytes.length < maskAt + 4) return undefined;
  if (bytes[1] === short) return closing(PROTOCOL_ERROR); // A client must mask.
  if (short === 127) return closing(TOO_LARGE); // 64 KiB or more.
  const bodyAt = maskAt + 4;
  const end = bodyAt + (short === 126 ? bytes.readUInt16BE(2) : short);
  if (bytes.length < end) return undefined;
  const [kind] = bytes;
  if (kind === PONG) return { frame: Buffer.alloc(0), end, isLast: false };
  const head = [kind === PING ? PONG : kind, ...bytes.subarray(1, maskAt)];
  head[1] = short;
  const body = bytes.subarray(bodyAt, end).map((byte, index) => byte ^ bytes[maskAt + (index % 4)]);
  return { frame: Buffer.concat([Buffer.from(head), body]), end, isLast: kind === CLOSE };
}

const closing = (code) => ({ frame: Buffer.from([CLOSE, 2, code >> 8, code & 0xff]), end: Infinity, isLast: true });
