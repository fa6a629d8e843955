/** `history`, `config show`, `explain` and their kin: what there is of the edge. */
import { stringify } from 'yaml';
import * as z from 'zod';
import type { AdminClient } from '#admin/client.ts';
import type { CertificateExplanation } from '#admin/certificate-control.ts';
import type { EdgeExplanation, VersionView } from '#admin/edge-control.ts';
import type { DiffEntry } from '#routing/operator/diff.ts';
import { routeName } from '#routing/operator/diff.ts';
import type { SplitShare } from '#routing/route-table.ts';
import type { LintFinding } from '#routing/operator/lint.ts';
import type { ChangeFlags, EdgeCommand } from './cli-command.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { plainText, tableText } from './cli-text.ts';

type ViewCommand = Exclude<EdgeCommand, ChangeFlags>;

export async function showEdge(command: ViewCommand, { edge }: AdminClient, output: Output): Promise<void> {
  const tell = (value: unknown, text: string): void => {
    if (command.json) writeJson(output, value);
    else output.write(text);
  };
  switch (command.kind) {
    case 'history': {
      const versions = await edge.history(command.last);
      tell(versions, historyText(versions));
      return;
    }
    case 'diff-since': {
      const { diff, differences } = await edge.diff(command.since);
      tell({ diff, differences }, diff.length === 0 ? 'nothing\n' : `${diffText(diff)}${moreText(diff.length, differences)}`);
      return;
    }
    case 'config-show': {
      const view = await edge.settings();
      tell(view, `# version ${String(view.version)}\n${stringify(view.document)}`);
      return;
    }
    case 'config-lint': {
      const findings = await edge.lint();
      tell(findings, lintText(findings));
      return;
    }
    case 'route-ls': {
      const { routes } = (await edge.settings()).document;
      const wanted = routes.filter(({ match }) => command.host === undefined || match.host === command.host);
      const rows = wanted.map((route) => [routeName(route.match), leadsTo(route)]);
      tell(wanted, tableText(['ROUTE', 'SERVICE'], rows));
      return;
    }
    case 'service-ls': {
      const { services } = (await edge.settings()).document;
      const rows = Object.entries(services).map(([name, { endpoints }]) => [name, endpoints.join(' ')]);
      tell(services, tableText(['SERVICE', 'ENDPOINTS'], rows));
      return;
    }
    case 'explain': {
      const { host, target, method, headers, version } = command;
      const explanation = await edge.explain({ host, target, method, headers }, version);
      tell(explanation, explainText(explanation));
      return;
    }
  }
}

function lintText(findings: readonly LintFinding[]): string {
  if (findings.length === 0) return 'nothing to say\n';
  return findings.map(({ at, message }) => `${plainText(at)}: ${plainText(message)}\n`).join('');
}

export function moreText(shown: number, all: number): string {
  return all > shown ? `and ${String(all - shown)} more\n` : '';
}

const SIGNS = { added: '+', removed: '-', changed: '~' } as const;

export function diffText(diff: readonly DiffEntry[]): string {
  return diff
    .map(({ change, kind, name, before, after }) => {
      const from = before === undefined ? '' : ` ${detailOf(before)}`;
      const to = after === undefined ? '' : `${before === undefined ? '' : ' →'} ${detailOf(after)}`;
      if (kind === 'order') return `${SIGNS[change]} order of the routes of ${plainText(name)}\n`;
      return `${SIGNS[change]} ${kind} ${plainText(name)}:${plainText(from)}${plainText(to)}\n`;
    })
    .join('');
}

const shareSchema = z.object({ service: z.string(), weight: z.number() });
const detailSchema = z.object({
  endpoints: z.array(z.string()).default([]),
  service: z.string().optional(),
  split: z.array(shareSchema).optional(),
});

/** `shop`, or `shop=95,shop-next=5`. */
function leadsTo({
  service,
  split,
}: {
  readonly service?: string | undefined;
  readonly split?: readonly z.infer<typeof shareSchema>[] | undefined;
}): string {
  return split === undefined ? (service ?? '') : split.map((share) => `${share.service}=${String(share.weight)}`).join(',');
}

/** A service by its endpoints, a route by its service. */
function detailOf(value: unknown): string {
  const { endpoints, service, split } = detailSchema.parse(value);
  if (service !== undefined || split !== undefined) return leadsTo({ service, split });
  return endpoints.length === 0 ? 'no endpoint' : endpoints.join(' ');
}

function historyText(versions: readonly VersionView[]): string {
  const rows = versions.map(({ version, atMs, cause, note, services, hosts }) => [
    String(version),
    new Date(atMs).toISOString(),
    cause,
    String(services),
    String(hosts),
    plainText(note),
  ]);
  return tableText(['VERSION', 'TIME', 'CAUSE', 'SERVICES', 'HOSTS', 'NOTE'], rows);
}

function shares(split: readonly SplitShare[]): string {
  return split.map(({ serviceId, weight }) => `${serviceId}=${String(weight)}`).join(', ');
}

function certificateText({ kind, name, hosts, source, notAfterMs }: CertificateExplanation): string {
  const until = notAfterMs === null ? '' : `, until ${new Date(notAfterMs).toISOString()}`;
  switch (kind) {
    case 'added':
      return `${name} (${source ?? '?'}), for ${hosts.join(', ')}${until}`;
    case 'internal':
      return `of the node's own CA, for ${hosts.join(', ')}${until}`;
    case 'default':
      return `the node's default${until}`;
    case 'none':
      return 'none: the handshake ends with the alert unrecognized_name';
  }
}

function explainText({
  version,
  host,
  path,
  route,
  tenant,
  outcome,
  endpoints,
  certificate,
  candidates,
  serviceId,
}: EdgeExplanation): string {
  const lines = [
    `request: ${host ?? '?'} ${path}, at version ${String(version)}`,
    `outcome: ${outcome}`,
    ...(route === undefined
      ? []
      : [
          `route: ${routeName(route)}`,
          `service: ${route.split === undefined ? (serviceId ?? '') : shares(route.split)} of ${tenant ?? ''}`,
        ]),
    ...endpoints.map(({ address, port, hostName, state }) => {
      const where = hostName === '' ? '' : ` on ${hostName}`;
      return `endpoint: ${address}:${String(port)}${where}${state === 'asleep' ? ', asleep' : ''}`;
    }),
    `certificate: ${certificateText(certificate)}`,
    ...candidates.map((candidate) => `  ${routeName(candidate.route)}: ${candidate.verdict}`),
  ];
  return `${lines.map(plainText).join('\n')}\n`;
}
