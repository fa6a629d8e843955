/** The registered domain of a host, as CAs count by it: a public suffix (also of the list's private part, as `github.io`) and one label. */
import { getDomain, parse } from 'tldts';

/** A host that is itself a public suffix, or has none, counts for itself. */
export function registeredDomainOf(host: string): string {
  const name = host.startsWith('*.') ? host.slice(2) : host;
  return getDomain(name, { allowPrivateDomains: true, validateHostname: false }) ?? name;
}

/** Whether public CAs can give it a certificate: it is below a public suffix, and not one itself. Addresses, `localhost` and names of inner networks are not. */
export function isPublicName(host: string): boolean {
  const name = host.startsWith('*.') ? host.slice(2) : host;
  const { domain, isIcann, isPrivate, isIp } = parse(name, { allowPrivateDomains: true, validateHostname: true });
  return isIp !== true && domain !== null && (isIcann === true || isPrivate === true);
}
