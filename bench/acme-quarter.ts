/**
 * What becomes of a quarter of a year of ACME, with some hundred hosts, three nodes and a CA that has bad days?
 *
 * The engine over a store, real requests over the loopback, simulated time; the CA is that of the tests, and counts for itself. It fails where something
 * expired, was ordered twice, broke a limit or used a nonce twice. `--hosts N` (half of them under one domain), `--nodes N`, `--at-a-time N` orders of each,
 * `--idle-factor N` (1: nodes look around every minute, as they do), `--seed N`.
 */
import { parseArgs } from 'node:util';
import { liveAcmeQuarter } from '../test/support/acme-quarter.ts';
import { machine } from './machine.ts';

const { values } = parseArgs({
  options: {
    hosts: { type: 'string', default: '200' },
    nodes: { type: 'string', default: '3' },
    'at-a-time': { type: 'string', default: '4' },
    'idle-factor': { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
  },
});
const ofOneDomain = Math.floor(Number(values.hosts) / 2);
const options = {
  ofOneDomain,
  others: Number(values.hosts) - ofOneDomain,
  nodes: Number(values.nodes),
  ordersAtATime: Number(values['at-a-time']),
  idleFactor: Number(values['idle-factor']),
  seed: Number(values.seed),
};
const startMs = performance.now();
const quarter = await liveAcmeQuarter(options);
const seconds = Math.round((performance.now() - startMs) / 1_000);
process.stdout.write(`${JSON.stringify({ bench: 'acme-quarter', ...options, ...quarter, seconds, machine: machine() })}\n`);
const broken = Object.values(quarter.overLimit).reduce((sum, count) => sum + count, 0);
if (quarter.expired.length + quarter.duplicates.length + broken + quarter.noncesReused > 0) process.exitCode = 1;
