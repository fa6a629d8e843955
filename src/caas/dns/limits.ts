/** Limits of the responder, with their reasons. */

/** Port at a host's link address. Any other is taken where it is in use; a constant one survives a restart of the node in open conversations. */
export const PORT_PREFERRED = 10_053;
/** Seconds. Containers move, so nobody should remember their addresses for long. */
export const OWN_TTL_SECONDS = 2;
/** What an answer over UDP may have: DNS flag day 2020, so that it is never fragmented. */
export const UDP_BYTES_MAX = 1232;
/** What each client takes (RFC 1035). */
export const UDP_BYTES_MIN = 512;
/** A question with options is under 400 bytes; one over TCP that claims more is no question. */
export const QUERY_BYTES_MAX = 4096;
/** A client that connects before every request of its own asks twice a connection: 500 connections a second, and a start from nothing. */
export const SOURCE_RATE_PER_SECOND = 1000;
export const SOURCE_BURST = 2000;
/** Sources that are remembered for their rate: ten hosts full of containers. */
export const SOURCES_MAX = 20_000;
/** Questions of one tenant that wait for the machine's resolvers: each holds a socket. */
export const FORWARDS_PER_TENANT_MAX = 128;
export const FORWARDS_MAX = 1024;
/** Time for one resolver: less than the 2 s after which clients ask again, so that the next one gets its turn before. */
export const FORWARD_TIMEOUT_MS = 1500;
/** As many as the C library reads from resolv.conf. */
export const RESOLVERS_MAX = 3;
/** How long a look at resolv.conf is believed. */
export const RESOLVERS_FRESH_MS = 1000;
export const CONNECTIONS_MAX = 512;
export const CONNECTIONS_PER_SOURCE_MAX = 16;
export const CONNECTION_IDLE_MS = 10_000;
