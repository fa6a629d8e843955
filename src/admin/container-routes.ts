/** The routes of the admin API for containers and their snapshots. */
import { doneRoute, jsonRoute, linesRoute } from './admin-route.ts';
import type { AdminRoute } from './admin-route.ts';
import { ANSWERS } from './answers.ts';
import { cloneRequestSchema, containersQuerySchema, migrateRequestSchema, restoreRequestSchema } from './requests.ts';

export const CONTAINER_ROUTES: readonly AdminRoute[] = [
  jsonRoute({
    method: 'GET',
    path: 'containers',
    summary: 'Containers of all tenants, or of one',
    query: containersQuerySchema,
    answer: ANSWERS.ContainerList,
    handle: async ({ control, query: { all, tenant } }) => ({ containers: await control.containers({ all, tenant }) }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'containers/{ref}',
    summary: 'One container',
    refusals: [409],
    answer: ANSWERS.Container,
    handle: async ({ control, captured }) => await control.container(captured('ref')),
  }),
  jsonRoute({
    method: 'GET',
    path: 'containers/{ref}/placement',
    summary: 'Where a container is, and why it was put there; its ETag is what a move can ask for',
    refusals: [409],
    answer: ANSWERS.Placement,
    handle: async ({ control, captured }) => await control.explainContainer(captured('ref')),
  }),
  linesRoute({
    path: 'containers/{ref}/migrate',
    summary: 'Move a running container to another host',
    body: migrateRequestSchema,
    conditional: true,
    refusals: [409],
    progress: ANSWERS.MigrationProgress,
    report: ANSWERS.Migration,
    handle: async ({ control, captured, body, ifMatch }, say) =>
      await control.migrate(captured('ref'), { ...body, ifMatch }, say),
  }),
  doneRoute({
    method: 'DELETE',
    path: 'containers/{ref}/migrate',
    summary: 'Call a move off that was not committed',
    refusals: [409],
    handle: async ({ control, captured }) => {
      await control.cancelMigration(captured('ref'));
    },
  }),
  jsonRoute({
    method: 'POST',
    path: 'containers/{ref}/suspend',
    summary: 'Put a container to sleep: memory on disk, woken by the next request',
    refusals: [409],
    answer: ANSWERS.Sleep,
    handle: async ({ control, captured }) => await control.suspend(captured('ref')),
  }),
  jsonRoute({
    method: 'POST',
    path: 'containers/{ref}/wake',
    summary: 'Wake a container that sleeps',
    refusals: [409],
    answer: ANSWERS.Wake,
    handle: async ({ control, captured }) => await control.wake(captured('ref')),
  }),
  jsonRoute({
    method: 'POST',
    path: 'containers/{ref}/clone',
    summary: 'Make warm copies of a running container',
    body: cloneRequestSchema,
    refusals: [409],
    answer: ANSWERS.Clones,
    handle: async ({ control, captured, body }) => await control.clone(captured('ref'), body.count),
  }),
  jsonRoute({
    method: 'POST',
    path: 'containers/{ref}/snapshot',
    summary: 'Keep memory, files and volumes of a running container as they are now',
    status: 201,
    refusals: [409],
    answer: ANSWERS.SnapshotTaken,
    handle: async ({ control, captured }) => await control.snapshot(captured('ref')),
  }),
  jsonRoute({
    method: 'GET',
    path: 'snapshots',
    summary: 'The snapshots that are kept, the oldest first',
    answer: ANSWERS.SnapshotList,
    handle: async ({ control }) => ({ snapshots: await control.snapshots() }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'snapshots/{ref}',
    summary: 'One snapshot',
    refusals: [409],
    answer: ANSWERS.Snapshot,
    handle: async ({ control, captured }) => await control.findSnapshot(captured('ref')),
  }),
  doneRoute({
    method: 'DELETE',
    path: 'snapshots/{ref}',
    summary: 'Remove a snapshot',
    conditional: true,
    refusals: [409],
    handle: async ({ control, captured, ifMatch }) => {
      await control.removeSnapshot(captured('ref'), ifMatch);
    },
  }),
  jsonRoute({
    method: 'POST',
    path: 'snapshots/{ref}/restore',
    summary: 'Bring a container back from a snapshot, or from its newest one',
    body: restoreRequestSchema,
    refusals: [409],
    answer: ANSWERS.Restore,
    handle: async ({ control, captured, body }) => await control.restore(captured('ref'), body.to),
  }),
];
