/**
 * The load: requests at a fixed rate, streams of events and WebSockets, in a process of its own, so that what stalls the benchmark
 * does not stall the clients. argv: JSON of `TOLD`. Commands: `begin` a window; `end` it and say what was seen; `audit` asks the app what it saw.
 */
import { buffer } from 'node:stream/consumers';
import { z } from 'zod';
import { answerCommands, endWithStdin } from '../../endurance/dialogue.ts';
import { startEventClients } from '../clients/events.ts';
import { openWay, ORIGIN } from '../clients/origin.ts';
import type { Way } from '../clients/origin.ts';
import { startRequests } from '../clients/requests.ts';
import type { Seen } from '../clients/seen.ts';
import { startWebSocketClients } from '../clients/web-sockets.ts';

const TOLD = z.object({
  origin: ORIGIN,
  ratePerSecond: z.number(),
  connectionsMax: z.int(),
  events: z.int(),
  webSockets: z.int(),
});
const COMMAND = z.object({ kind: z.enum(['begin', 'end', 'audit']) });

const told = TOLD.parse(JSON.parse(process.argv[2] ?? ''));
const way = openWay(told.origin, told.connectionsMax);
const requests = startRequests(way, told.ratePerSecond);
const events = startEventClients(way, told.events);
const webSockets = startWebSocketClients(way, told.webSockets);

function begin(): void {
  requests.begin();
  events.begin();
  webSockets.begin();
}

async function end(): Promise<Seen> {
  const seen = { events: events.end(), webSockets: webSockets.end() };
  return { requests: await requests.end(), ...seen };
}

async function audit(asked: Way): Promise<object> {
  const text = await new Promise<Buffer>((resolve, reject) => {
    const outgoing = asked.request({ connection: 'own', path: '/audit' }, (response) => {
      buffer(response).then(resolve, reject);
    });
    outgoing.once('error', reject);
    outgoing.end();
  });
  return z.looseObject({}).parse(JSON.parse(text.toString()));
}

answerCommands(async (given) => {
  switch (COMMAND.parse(given).kind) {
    case 'begin':
      begin();
      return {};
    case 'end':
      return await end();
    case 'audit':
      return await audit(way);
  }
});
endWithStdin();
