/**
 * Opens keep-alive connections, makes one request on each, and leaves them open until stdin ends.
 * argv: scheme, port, host, connections. Says `{"open":N,"errors":[…]}` when all are through.
 */
import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

const [, , scheme, port, host = '', connections] = process.argv;
const AT_ONCE = 50;
const total = Number(connections);
const errors: string[] = [];
let begun = 0;
let open = 0;
let ended = 0;

function next(): void {
  if (begun === total) return;
  begun += 1;
  const to = { port: Number(port), host: '127.0.0.1' };
  const request = `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
  const socket: Socket =
    scheme === 'https' ? connectTls({ ...to, servername: host, rejectUnauthorized: false }) : createConnection(to);
  socket.once(scheme === 'https' ? 'secureConnect' : 'connect', () => socket.write(request));
  let answered = false;
  const done = (error?: string): void => {
    if (error !== undefined) errors.push(error);
    if (answered) return;
    answered = true;
    if (error === undefined) open += 1;
    ended += 1;
    if (ended === total) process.stdout.write(`${JSON.stringify({ open, errors: errors.slice(0, 3) })}\n`);
    else next();
  };
  let said = '';
  socket.on('data', (piece: Buffer) => {
    if (answered) return;
    said += piece.toString('latin1');
    const end = said.indexOf('\r\n\r\n');
    if (end !== -1 && said.length >= end + 4 + 200) done(said.startsWith('HTTP/1.1 200') ? undefined : said.slice(0, 60));
  });
  socket.on('error', (error) => {
    done(error.message);
  });
  socket.on('close', () => {
    done('closed');
  });
}

for (let count = 0; count < Math.min(AT_ONCE, total); count += 1) next();
process.stdin
  .on('end', () => {
    // oxlint-disable-next-line unicorn/no-process-exit -- the program's own end: its sockets stay open
    process.exit(0);
  })
  .resume();
