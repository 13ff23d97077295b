"""The page at /docs, and the operations on it."""


class Docs:
    """The page as a reader uses it. An operation is named as the page shows it: `GET /products`."""

    def __init__(self, browser, origin):
        self.browser, self.origin = browser, origin

    def open(self):
        self.browser.call("POST", "/url", {"url": f"{self.origin}/docs"})
        self.browser.wait("Swagger UI", "return !all('.loading-container').length && all('.opblock-tag, .opblock')[0]")
        closed = "return all('.opblock-tag-section:not(.is-open) .opblock-tag')"
        for tag in self.browser.run(closed):
            self.browser.click(tag)
        self.browser.wait("open tags", f"return !(() => {{ {closed} }})().length")

    def part(self, operation, selector):
        """Returns a part of the operation as soon as it is visible."""
        return self.browser.wait(f"{selector} in {operation}", "return within(...args)", operation, selector)

    def unfold(self, operation):
        if not self.browser.run("return within(arguments[0], '.opblock-body')", operation):
            self.browser.click(self.part(operation, ".opblock-summary-control"))

    def fold(self, operation):
        self.browser.click(self.part(operation, ".opblock-summary-control"))
        self.browser.wait(f"{operation} folded", "return !within(args[0], '.opblock-body')", operation)

    def try_out(self, operation, **parameters):
        """Presses Try it out and returns the request body that is filled in, or "{}"."""
        self.unfold(operation)
        if not self.browser.run("return within(arguments[0], '.btn.execute')", operation):
            self.browser.click(self.part(operation, ".try-out__btn"))
        self.part(operation, ".btn.execute")
        for name, value in parameters.items():
            self.browser.type_over(self.part(operation, f"[data-param-name='{name}'] input"), value)
        return self.browser.run("return within(arguments[0], 'textarea.body-param__text')?.value || '{}'", operation)

    def execute(self, operation):
        """Presses Execute and returns the status and the body that are then shown."""
        if old := self.browser.run("return within(arguments[0], '.btn-clear')", operation):
            self.browser.click(old)
            self.browser.wait("an empty answer", "return !within(args[0], '.live-responses-table')", operation)
        self.browser.click(self.part(operation, ".btn.execute"))
        row = ".live-responses-table tr.response"
        self.part(operation, f"{row} .response-col_description pre")
        return self.browser.run(
            "return [' .response-col_status', ' .response-col_description pre']"
            ".map(part => text(within(arguments[0], arguments[1] + part)))", operation, row)
