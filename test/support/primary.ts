/** A primary to be killed: starts an edge with an endpoint on a port and says where it listens and who serves. */
import { configOf, startEdge } from './edge.ts';

const [, , endpointPort = ''] = process.argv;
const endpoint = { id: 'c1', address: '127.0.0.1', port: Number(endpointPort), hostName: 'alpha', generation: 1 };
const edge = await startEdge({ config: configOf([endpoint]) });
process.stdout.write(`${String(edge.httpPort)} ${String(edge.pool.status()[0]?.pid)}\n`);
