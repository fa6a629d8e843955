/** The Date field of responses that have none (RFC 9110 §6.6.1), made once a second. */
const MS = 1000;

let second = -1;
let line = Buffer.alloc(0);

/** The whole line for a wall-clock time. */
export function dateLineAt(wallMs: number): Buffer {
  const now = Math.floor(wallMs / MS);
  if (now !== second) {
    second = now;
    line = Buffer.from(`Date: ${new Date(now * MS).toUTCString()}\r\n`, 'latin1');
  }
  return line;
}
