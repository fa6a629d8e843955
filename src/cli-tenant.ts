/** `tenant add|ls|set|rm|env`: accounts and their quotas. */
import type { AdminClient } from '#admin/client.ts';
import type { TenantView } from '#admin/node-control.ts';
import type { TenantQuota } from '#state/tenants.ts';
import { formatBytes, formatDuration } from '#units';
import type { RemoteCommand, TenantSettings } from './cli-command.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { shellWord, tableText } from './cli-text.ts';

export type TenantCommand = Extract<RemoteCommand, { readonly kind: `tenant-${string}` }>;

export async function runTenantCommand(command: TenantCommand, client: AdminClient, output: Output): Promise<void> {
  switch (command.kind) {
    case 'tenant-add': {
      const tenant = await client.addTenant({ name: command.name, ...fieldsOf(command.settings) });
      if (command.json) writeJson(output, tenant);
      else
        output.write(
          `${tenant.name} added: ${quotaText(tenant.quota)}\nuse it with: eval "$(ecluse tenant env ${tenant.name})"\n`,
        );
      return;
    }
    case 'tenant-ls': {
      const tenants = await client.tenants();
      if (command.json) writeJson(output, tenants);
      else output.write(tenantTable(tenants, Date.now()));
      return;
    }
    case 'tenant-set': {
      const state = command.state === undefined ? {} : { state: command.state };
      const tenant = await client.setTenant(command.name, { ...fieldsOf(command.settings), ...state });
      if (command.json) writeJson(output, tenant);
      else output.write(`${tenant.name} is ${tenant.state}: ${quotaText(tenant.quota)}\n`);
      return;
    }
    case 'tenant-rm':
      await client.removeTenant(command.name);
      if (command.json) writeJson(output, { name: command.name, removed: true });
      else output.write(`${command.name} removed\n`);
      return;
    case 'tenant-env':
      await printEnv(command, client, output);
      return;
  }
}

/** Only what was given: what is absent gets its default, or stays. */
function fieldsOf(settings: TenantSettings): {
  quota?: Partial<TenantQuota>;
  domains?: readonly string[];
  address?: string;
} {
  const { domains, address, ...quotas } = settings;
  const quota = Object.fromEntries(Object.entries(quotas).filter(([, value]) => value !== undefined));
  return {
    ...(Object.keys(quota).length === 0 ? {} : { quota }),
    ...(domains === undefined ? {} : { domains }),
    ...(address === undefined ? {} : { address }),
  };
}

function quotaText(quota: TenantQuota): string {
  const counts = [
    `${String(quota.containersMax)} containers`,
    `${formatBytes(quota.memoryBytesMax)} of memory`,
    ...(quota.cpuMilliMax === 0 ? [] : [`${String(quota.cpuMilliMax / 1000)} processors`]),
    `${String(quota.imagesMax)} images`,
    `${String(quota.networksMax)} networks`,
    `${String(quota.volumesMax)} volumes`,
    `${String(quota.portsMax)} published ports`,
  ];
  return `up to ${counts.join(', ')}`;
}

function tenantTable(tenants: readonly TenantView[], nowMs: number): string {
  return tableText(
    ['NAME', 'STATE', 'CONTAINERS', 'MEMORY', 'IMAGES', 'ADDRESS', 'DOMAINS', 'CREATED'],
    tenants.map(({ name, state, containers, quota, address, domains, createdMs }) => [
      name,
      state,
      `${String(containers)}/${String(quota.containersMax)}`,
      formatBytes(quota.memoryBytesMax),
      String(quota.imagesMax),
      address === '' ? '-' : address,
      domains.length === 0 ? '-' : domains.join(','),
      `${formatDuration(nowMs - createdMs)} ago`,
    ]),
  );
}

async function printEnv(command: TenantCommand, client: AdminClient, output: Output): Promise<void> {
  if (command.kind !== 'tenant-env') return;
  const { dockerHost, certPath } = await client.tenantEnv(command.name);
  const variables = { DOCKER_HOST: dockerHost, DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: certPath };
  if (command.json) {
    writeJson(output, variables);
    return;
  }
  for (const [name, value] of Object.entries(variables)) output.write(`export ${name}=${shellWord(value)}\n`);
}
