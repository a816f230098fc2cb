"""A page of ours in a real browser, alone or in the frame in which the Kubeflow UI shows it."""

FRAME = "<body style='margin:0'><iframe sandbox='allow-scripts' style='border:0;width:{width}px;height:880px'></iframe>"


class Opened:
    """A page, what its console said and what it asked for beside itself."""

    def __init__(self, browser, width, scheme="light"):
        self.page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def alone(self, file):
        """Open a file; returns it as something that has locators."""
        self.page.goto(file.as_uri())
        return self.page

    def framed(self, file):
        """The same in a sandboxed frame as wide as the window."""
        self.page.set_content(FRAME.format(width=self.page.viewport_size["width"]))
        show = "html => { document.querySelector('iframe').srcdoc = html }"
        self.page.evaluate(show, file.read_text())
        return self.page.frame_locator("iframe")


def check_whole(browser, file, figures, width, way):
    """Every figure is there and nothing sticks out; nothing is said on the console, nothing asked of a network."""
    opened = Opened(browser, width)
    place = getattr(opened, way)(file)
    place.locator("figure svg").nth(figures - 1).wait_for()
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(("data:", "about:"))] == [file.as_uri()] * (
        way == "alone"
    )
    assert place.locator("figure").count() == figures
    for figure in place.locator("figure").all():
        box, drawing = figure.bounding_box(), figure.locator("svg").bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
        assert drawing["width"] > 250
        assert drawing["height"] > 80
        assert drawing["width"] <= box["width"] or figure.locator(".scroll").count()  # or it scrolls in its own box
    assert place.locator("html").evaluate("html => html.scrollWidth") <= width
