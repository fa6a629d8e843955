/** `cert ls`, `cert add`, `cert rm`, `cert renew`: certificates at the edge. */
import { open } from 'node:fs/promises';
import type { CertificateAdded, CertificateList } from '#admin/certificate-control.ts';
import type { AdminClient } from '#admin/client.ts';
import { EcluseError, reasonOf } from '#errors';
import type { RemoteCommand } from './cli-command.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { plainText, tableText } from './cli-text.ts';

type CertCommand = Extract<RemoteCommand, { readonly kind: 'cert-ls' | 'cert-add' | 'cert-rm' | 'cert-renew' }>;

/** One more than the daemon takes: what is larger it refuses, with the reason. */
const READ_BYTES_MAX = 64 * 1024 + 1;
/** Of the names of one certificate. */
const HOSTS_SHOWN_MAX = 3;

export async function runCertCommand(command: CertCommand, { certificates }: AdminClient, output: Output): Promise<void> {
  const tell = (value: object, text: string): void => {
    if (command.json) writeJson(output, value);
    else output.write(text);
  };
  switch (command.kind) {
    case 'cert-ls': {
      const list = await certificates.list();
      tell(list, listText(list));
      return;
    }
    case 'cert-add': {
      const { name, force } = command;
      const [certPem, keyPem] = [await readPemFile('--cert', command.certFile), await readPemFile('--key', command.keyFile)];
      const added = await certificates.add({ name, certPem, keyPem, force });
      tell(added, addedText(added));
      return;
    }
    case 'cert-renew': {
      const asked = await certificates.renew({ host: command.host, force: command.force });
      tell(asked, `CAs are asked for ${String(asked.hosts)} ${asked.hosts === 1 ? 'host' : 'hosts'}; see: ecluse cert ls\n`);
      return;
    }
    case 'cert-rm':
      await certificates.remove(command.name);
      tell({ certificate: command.name, removed: true }, `${plainText(command.name)} is removed\n`);
      return;
  }
}

/** `-` is standard input. */
async function readPemFile(flag: string, path: string): Promise<string> {
  try {
    await using file = await open(path === '-' ? '/dev/stdin' : path, 'r');
    const buffer = Buffer.alloc(READ_BYTES_MAX);
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return buffer.toString('latin1', 0, length);
  } catch (error) {
    throw new EcluseError({
      code: 'ECLUSE_FILE_UNREADABLE',
      source: 'usage',
      message: `the file ${path} of ${flag} cannot be read: ${reasonOf(error)}`,
      mend: 'check the name of the file',
      cause: error,
    });
  }
}

function hostsText(hosts: readonly string[]): string {
  const shown = hosts.slice(0, HOSTS_SHOWN_MAX).join(',');
  return hosts.length > HOSTS_SHOWN_MAX ? `${shown} and ${String(hosts.length - HOSTS_SHOWN_MAX)} more` : shown;
}

function listText({ certificates, waiting }: CertificateList): string {
  const rows = certificates.map(({ name, version, source, hosts, keyKind, notAfterMs, renewal }) =>
    [
      name,
      String(version),
      source,
      hostsText(hosts),
      keyKind,
      new Date(notAfterMs).toISOString(),
      typeof renewal?.renewAtMs === 'number' ? new Date(renewal.renewAtMs).toISOString() : '-',
    ].map(plainText),
  );
  const notes = certificates.flatMap(({ name, warnings, renewal }) => [
    ...warnings.map((warning) => `${name}: ${warning}`),
    ...(typeof renewal?.lastError === 'string' ? [`${name}: it was not renewed: ${renewal.lastError}`] : []),
  ]);
  const missing = waiting.map(
    ({ host, lastError }) => `${host}: it waits for its certificate${lastError === null ? '' : `: ${lastError}`}`,
  );
  const lines = [...notes, ...missing].map((line) => `${plainText(line)}\n`);
  return `${tableText(['NAME', 'VERSION', 'SOURCE', 'HOSTS', 'KEY', 'ENDS', 'RENEWED'], rows)}${lines.join('')}`;
}

function addedText({ certificate, notes }: CertificateAdded): string {
  const { name, version, hosts, notAfterMs, warnings } = certificate;
  const lines = [
    `${name}, version ${String(version)}, is served for ${hosts.join(', ')} until ${new Date(notAfterMs).toISOString()}`,
    ...[...notes, ...warnings].map((note) => `note: ${note}`),
  ];
  return lines.map((line) => `${plainText(line)}\n`).join('');
}
