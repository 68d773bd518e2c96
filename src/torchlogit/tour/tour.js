// A moved slider sends each of its values, and the browser sends them over several connections, on which one may
// overtake another: the page would then show the numbers of the value before the last. So each waits for the answer
// to the one before it.
(() => {
  const send = window.fetch;
  let answered = Promise.resolve();
  window.fetch = (target, options) => {
    const address = new URL(target instanceof Request ? target.url : target, document.baseURI);
    if (!address.pathname.endsWith("/api/kernel/set_ui_element_value")) return send(target, options);
    const answer = answered.then(() => send(target, options));
    answered = answer.catch(() => {});
    return answer;
  };
})();
