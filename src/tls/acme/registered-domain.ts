/** The registered domain of a host, as CAs count by it: a public suffix (also of the list's private part, as `github.io`) and one label. */
import { getDomain } from 'tldts';

/** A host that is itself a public suffix, or has none, counts for itself. */
export function registeredDomainOf(host: string): string {
  const name = host.startsWith('*.') ? host.slice(2) : host;
  return getDomain(name, { allowPrivateDomains: true, validateHostname: false }) ?? name;
}
