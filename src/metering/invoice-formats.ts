/** Invoices for programs of others: FOCUS 1.2 (focus.finops.org) and CloudEvents 1.0. Pure. */
import { createHash } from 'node:crypto';
import { decimalText, microsText } from './money.ts';
import { divideHalfEven } from './money.ts';
import { isVolumeKey, resourceName } from './ledger-chain.ts';
import { skuOf } from './invoice.ts';
import type { CorrectionLine, Invoice, InvoiceLine } from './invoice.ts';
import type { UsageLine } from './usage-lines.ts';

/**
 * The columns of FOCUS 1.2 that there are: all mandatory ones, those that its conditions ask for, and those recommended that Écluse has something to say in.
 * Not there: what it has no notion of (commitments, capacity, regions, sub-accounts, a currency of prices beside the invoice's, tags).
 */
export const FOCUS_COLUMNS = [
  'BilledCost',
  'BillingAccountId',
  'BillingAccountName',
  'BillingCurrency',
  'BillingPeriodEnd',
  'BillingPeriodStart',
  'ChargeCategory',
  'ChargeClass',
  'ChargeDescription',
  'ChargeFrequency',
  'ChargePeriodEnd',
  'ChargePeriodStart',
  'ConsumedQuantity',
  'ConsumedUnit',
  'ContractedCost',
  'ContractedUnitPrice',
  'EffectiveCost',
  'InvoiceId',
  'InvoiceIssuerName',
  'ListCost',
  'ListUnitPrice',
  'PricingCategory',
  'PricingQuantity',
  'PricingUnit',
  'ProviderName',
  'PublisherName',
  'ResourceId',
  'ResourceName',
  'ResourceType',
  'ServiceCategory',
  'ServiceName',
  'ServiceSubcategory',
  'SkuId',
  'SkuMeter',
  'SkuPriceId',
] as const;
export type FocusColumn = (typeof FOCUS_COLUMNS)[number];
/** Empty: null. */
export type FocusRow = Readonly<Record<FocusColumn, string>>;

/** Digits of quantities that do not end: a hundred thousandth of what an amount is rounded to, whatever the price is. */
const QUANTITY_DIGITS = 18;

/** `2026-11-30T00:00:00Z`. */
function instantText(atMs: number): string {
  return Temporal.Instant.fromEpochMilliseconds(atMs).toString();
}

/** Names the invoice of a tenant's month. */
export function invoiceId({ tenant, fromMs }: Pick<Invoice, 'tenant' | 'fromMs'>): string {
  return `${tenant}-${instantText(fromMs).slice(0, 7)}`;
}

/** One row a line. `BilledCost` of all rows is the invoice's total. */
export function focusRows(invoice: Invoice): readonly FocusRow[] {
  return invoice.lines.map((line) => ({ ...invoiceColumns(invoice, line), ...chargeColumns(line) }));
}

type Common =
  | 'BilledCost'
  | 'EffectiveCost'
  | `Billing${string}`
  | 'InvoiceId'
  | 'InvoiceIssuerName'
  | 'ProviderName'
  | 'PublisherName';
type CommonColumn = Extract<FocusColumn, Common | `ChargePeriod${string}` | 'ChargeClass' | `Service${string}`>;

function invoiceColumns(invoice: Invoice, line: InvoiceLine): Readonly<Record<CommonColumn, string>> {
  const amount = microsText(line.amountMicros);
  return {
    BilledCost: amount,
    EffectiveCost: amount,
    BillingAccountId: invoice.tenant,
    BillingAccountName: invoice.tenant,
    BillingCurrency: invoice.currency,
    BillingPeriodStart: instantText(invoice.fromMs),
    BillingPeriodEnd: instantText(invoice.toMs),
    ChargePeriodStart: instantText(line.fromMs),
    ChargePeriodEnd: instantText(line.toMs),
    ChargeClass: line.kind === 'correction' ? 'Correction' : '',
    InvoiceId: invoiceId(invoice),
    InvoiceIssuerName: invoice.issuer,
    ProviderName: invoice.issuer,
    PublisherName: invoice.issuer,
    ServiceCategory: 'Compute',
    ServiceName: 'Écluse containers',
    ServiceSubcategory: 'Containers',
  };
}

function chargeColumns(line: InvoiceLine): Omit<FocusRow, CommonColumn> {
  const amount = microsText(line.amountMicros);
  if (line.kind === 'usage') return usageColumns(line);
  if (line.kind === 'correction' && line.of === 'usage')
    return { ...emptyColumns(line.about, amount), ...correctedColumns(line) };
  const of = line.kind === 'correction' ? line.of : line.kind;
  return {
    ...emptyColumns(line.about, amount),
    ChargeCategory: of === 'minimum' ? 'Adjustment' : 'Credit',
    ChargeFrequency: line.kind === 'allowance' || line.kind === 'minimum' ? 'Recurring' : 'One-Time',
  };
}

/** Prices are those of several hours, or none: FOCUS lets them be null in corrections. */
function correctedColumns({ quantity, container, name, sku: price }: CorrectionLine): Partial<FocusRow> {
  const sku = price === null ? undefined : skuOf(price);
  const units = sku === undefined ? '' : decimalText(quantity, sku.unitSize, QUANTITY_DIGITS);
  return {
    ChargeCategory: 'Usage',
    ChargeFrequency: 'One-Time',
    ConsumedQuantity: units,
    ConsumedUnit: sku?.unit ?? '',
    PricingCategory: 'Standard',
    PricingQuantity: units,
    PricingUnit: sku?.unit ?? '',
    ResourceId: container,
    ResourceName: name,
    ResourceType: resourceTypeOf(container),
    SkuId: sku?.price ?? '',
    SkuMeter: sku?.about ?? '',
  };
}

function emptyColumns(about: string, amount: string): Omit<FocusRow, CommonColumn> {
  return {
    ChargeCategory: '',
    ChargeDescription: about,
    ChargeFrequency: '',
    ConsumedQuantity: '',
    ConsumedUnit: '',
    ContractedCost: amount,
    ContractedUnitPrice: '',
    ListCost: amount,
    ListUnitPrice: '',
    PricingCategory: '',
    PricingQuantity: '',
    PricingUnit: '',
    ResourceId: '',
    ResourceName: '',
    ResourceType: '',
    SkuId: '',
    SkuMeter: '',
    SkuPriceId: '',
  };
}

function resourceTypeOf(container: string): string {
  return isVolumeKey(container) ? 'Volume' : 'Container';
}

function usageColumns(line: UsageLine): Omit<FocusRow, CommonColumn> {
  const sku = skuOf(line.sku);
  const quantity = decimalText(line.quantity, sku.unitSize, QUANTITY_DIGITS);
  return {
    ChargeCategory: 'Usage',
    ChargeDescription: describe(line),
    ChargeFrequency: 'Usage-Based',
    ConsumedQuantity: quantity,
    ConsumedUnit: sku.unit,
    ContractedCost: microsText(line.amountMicros),
    ContractedUnitPrice: microsText(line.unitPriceMicros),
    ListCost: microsText(divideHalfEven(line.quantity * line.listPriceMicros, sku.unitSize)),
    ListUnitPrice: microsText(line.listPriceMicros),
    PricingCategory: 'Standard',
    PricingQuantity: quantity,
    PricingUnit: sku.unit,
    ResourceId: line.container,
    ResourceName: line.name,
    ResourceType: resourceTypeOf(line.container),
    SkuId: line.sku,
    SkuMeter: sku.about,
    SkuPriceId: `${line.sku}/${line.tariff}`,
  };
}

export function describe(line: InvoiceLine): string {
  if (line.kind !== 'usage') return line.about;
  const sku = skuOf(line.sku);
  return `${sku.about} of ${resourceName(line)}${line.tariff === 'off-peak' ? ', off-peak' : ''}`;
}

/**
 * CloudEvents 1.0 in their JSON format, one a line of the invoice. An issued invoice has the same ids, whenever it is printed; those of one that is not are
 * of what it says now, and of another type.
 */
export function invoiceEvents(invoice: Invoice, source: string): readonly object[] {
  const drafts = draftIds(invoice);
  return invoice.lines.map((line, index) => ({
    specversion: '1.0',
    id: drafts?.[index] ?? `${invoiceId(invoice)}-${String(index + 1)}`,
    source,
    type: invoice.issued === null ? 'ecluse.invoice.draft-line' : 'ecluse.invoice.line',
    subject: invoice.tenant,
    time: instantText(line.toMs),
    datacontenttype: 'application/json',
    data: { invoice: invoiceId(invoice), number: invoice.issued?.number ?? null, currency: invoice.currency, ...lineTexts(line) },
  }));
}

/** By line. Undefined: it is issued. */
function draftIds(invoice: Invoice): readonly string[] | undefined {
  if (invoice.issued !== null) return undefined;
  const alike = new Map<string, number>();
  return invoice.lines.map((line) => {
    const text = JSON.stringify(lineTexts(line));
    const before = alike.get(text) ?? 0;
    alike.set(text, before + 1);
    // Two credits can say the same: no event of them is taken for the other.
    const said = before === 0 ? text : `${text} ${String(before + 1)}`;
    const digest = createHash('sha256').update(said).digest('hex');
    return `${invoiceId(invoice)}-draft-${digest.slice(0, 32)}`;
  });
}

/** A line with exact amounts as texts. */
export function lineTexts(line: InvoiceLine): Readonly<Record<string, string | number | null>> {
  const { fromMs, toMs, amountMicros, ...rest } = line;
  const times = { from: instantText(fromMs), to: instantText(toMs), amount: microsText(amountMicros) };
  if (rest.kind === 'correction') {
    const { quantity: more, ...correction } = rest;
    const of = rest.sku === null ? undefined : skuOf(rest.sku);
    const units = of === undefined || rest.of !== 'usage' ? null : decimalText(more, of.unitSize, QUANTITY_DIGITS);
    return { ...correction, ...times, quantity: units, unit: units === null ? null : (of?.unit ?? null), counted: String(more) };
  }
  if (rest.kind !== 'usage') return { ...rest, ...times };
  const { quantity, unitPriceMicros, listPriceMicros, ...usage } = rest;
  const sku = skuOf(rest.sku);
  return {
    ...usage,
    ...times,
    quantity: decimalText(quantity, sku.unitSize, QUANTITY_DIGITS),
    unit: sku.unit,
    counted: String(quantity),
    unitPrice: microsText(unitPriceMicros),
    listPrice: microsText(listPriceMicros),
  };
}
