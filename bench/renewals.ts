/**
 * Ninety days of renewals: do they stay within what Let's Encrypt publishes, and does anything expire?
 *
 * In simulated time, with the planner, the ledger, the back-off and the queue of the ACME engine and nothing of the network: hosts under some thousands of
 * registered domains and one tenant's domain, certificates of 45 days, a crowd of new hosts at once, an outage of the CA, and hosts that the CA cannot
 * reach for some days. The limits are judged by the limiter of the tests' own CA, which knows nothing of the ledger. One line of JSON a scenario.
 *
 * `--hosts N` in all, `--domains N`, `--tenant N` of them under one domain, `--crowd N` of them new on day 10, `--days N`, `--outage-hours N` from day 30,
 * `--broken N` of ten thousand hosts, `--at-a-time N` orders, `--step-seconds N` between plans, `--seed N`, `--scenarios a,b` (there is
 * `no-ari-all-counted` too: at this size it ends badly, and takes long).
 */
import { parseArgs } from 'node:util';
import { machine } from './machine.ts';
import { SCENARIOS, simulateRenewals } from './renewals/simulate.ts';

const { values } = parseArgs({
  options: {
    hosts: { type: 'string', default: '100000' },
    domains: { type: 'string', default: '8000' },
    tenant: { type: 'string', default: '4000' },
    crowd: { type: 'string', default: '20000' },
    days: { type: 'string', default: '90' },
    'outage-hours': { type: 'string', default: '48' },
    broken: { type: 'string', default: '20' },
    'at-a-time': { type: 'string', default: '20' },
    'step-seconds': { type: 'string', default: '300' },
    seed: { type: 'string', default: '1' },
    scenarios: { type: 'string', default: 'ari,no-ari' },
  },
});

for (const name of values.scenarios.split(',')) {
  const scenario = SCENARIOS[name];
  if (scenario === undefined) throw new Error(`no scenario "${name}": there are ${Object.keys(SCENARIOS).join(', ')}`);
  const options = {
    hosts: Number(values.hosts),
    domains: Number(values.domains),
    tenant: Number(values.tenant),
    crowd: Number(values.crowd),
    days: Number(values.days),
    outageHours: Number(values['outage-hours']),
    brokenOfTenThousand: Number(values.broken),
    ordersAtATime: Number(values['at-a-time']),
    stepMs: Number(values['step-seconds']) * 1_000,
    seed: Number(values.seed),
  };
  const startMs = performance.now();
  const result = simulateRenewals(scenario, options);
  const seconds = Math.round((performance.now() - startMs) / 1_000);
  process.stdout.write(
    `${JSON.stringify({ bench: 'renewals', scenario: name, ...options, ...result, seconds, machine: machine() })}\n`,
  );
}
