// A handler of Supabase's Edge Functions, or of any server: SUPABASE_URL and SUPABASE_ANON_KEY name
// the project, in whose database `bemi init --postgrest --trust-context reason` was done.
//
//     node edge-function.mjs

import { createClient } from "@supabase/supabase-js";
import { setContext } from "bemi/supabase";

export async function complete(request) {
  const { id, reason } = await request.json();
  const supabase = createClient(process.env.SUPABASE_URL, process.env.SUPABASE_ANON_KEY, {
    global: { headers: { Authorization: request.headers.get("authorization") ?? "" } },
  });
  // Path, method and the user of the token are known in the database; this is what is not.
  setContext(supabase, { reason });
  const { error } = await supabase.from("todo").update({ done: true }).eq("id", id);
  return new Response(null, { status: error ? 500 : 204 });
}

if (process.env.SUPABASE_URL) {
  const body = JSON.stringify({ id: 1, reason: "ticket 4711" });
  const answer = await complete(new Request("http://localhost/complete", { method: "POST", body }));
  console.log(answer.status);
}
