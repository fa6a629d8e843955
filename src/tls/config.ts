/** The keys of `ecluse.yaml` that are about certificates. */
import * as z from 'zod';
import { acmeKeys, acmeSettingsOf } from './acme/acme-keys.ts';
import type { AcmeFileSettings } from './acme/acme-keys.ts';

/** What a handshake gets whose name no certificate and no route is for. */
const unknownNames = z.enum(['default', 'alert'], {
  error: ({ input }) => `${JSON.stringify(input).slice(0, 80)} is no answer to unknown names; write "default" or "alert"`,
});
export type UnknownNames = z.infer<typeof unknownNames>;

/** The keys, for the schema of the whole file. */
export const tlsKeys = {
  ...acmeKeys,
  tls: z
    .strictObject({
      unknownNames: unknownNames
        .prefault('default')
        .describe(
          'What a TLS handshake gets whose name no certificate and no route is for. "default": the node\'s own certificate, which browsers warn of. "alert": the alert unrecognized_name, and the connection ends. A client that names no host gets the default.',
        ),
    })
    .prefault({})
    .describe('Certificates at the edge.'),
};

export type AcmeSettings = AcmeFileSettings;

/** What the file says of ACME, with paths that are relative to `baseFolder`; undefined: nothing. */
export function acmeOf(written: Parameters<typeof acmeSettingsOf>[0], baseFolder: string): AcmeSettings | undefined {
  return acmeSettingsOf(written, baseFolder);
}
