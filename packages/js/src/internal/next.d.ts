/** What is used of Next.js, which is a third of a gigabyte to have. */
declare module "next/headers.js" {
  export function headers(): Headers | Promise<Headers>;
}
