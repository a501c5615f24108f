// Shows the error card if the page itself fails: an exception, a script that did not load, a browser without modules. It uses only
// what old browsers know, because it must run if nothing else does.
(function () {
  function fail() {
    document.documentElement.className = 'broken';
    var reload = document.getElementById('reload');
    if (reload) reload.focus();
  }

  function isOurs(event) {
    if (event.target && event.target !== window) return event.target.tagName === 'SCRIPT';
    return !event.filename || event.filename.indexOf(location.origin) === 0;
  }

  addEventListener('error', function (event) {
    if (isOurs(event)) fail();
  }, true);
  addEventListener('unhandledrejection', fail);
  if (!('noModule' in document.createElement('script'))) addEventListener('DOMContentLoaded', fail);
})();
