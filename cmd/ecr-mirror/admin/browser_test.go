package admin

import (
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin/browser"
)

var update = flag.Bool("update", false, "write the screenshots in docs")

// contrast lists the texts whose contrast with what is behind them is less than WCAG's AA, 4.5 to 1.
const contrast = `(() => {
	const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
	const rgba = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
	const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
	const behind = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255]; };
	const bad = [];
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n; (n = walk.nextNode());) {
		const e = n.parentElement;
		if (!n.data.trim() || !e.checkVisibility() || ["SCRIPT", "NOSCRIPT"].includes(e.tagName)) continue;
		const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))];
		const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		if (ratio < 4.5) bad.push(n.data.trim().slice(0, 40) + " " + ratio.toFixed(2));
	}
	return bad;
})()`

// unnamed lists the controls that say nothing to who does not see them.
const unnamed = `[...document.querySelectorAll("button, input:not([type=hidden]), select, a, progress, [role=img], [role=region]")].filter((e) =>
	!(e.textContent.trim() || e.ariaLabel || e.labels?.length || document.getElementById(e.getAttribute("aria-labelledby")))).map((e) => e.outerHTML)`

// The page as a browser shows it, in light and in dark: nothing that cannot be read, nothing wider than the window, no control
// without a name, no identifier given twice, and nothing asked of another host.
func TestPageLooks(t *testing.T) {
	w := newWorld(t)
	w.busy()
	srv := httptest.NewServer(w.handler())
	defer srv.Close()
	p := browser.Start(t)
	for _, scheme := range []string{"light", "dark"} {
		p.Scheme(scheme)
		p.Size(1280, 900)
		p.Open(srv.URL + "/")
		p.Wait(`document.getElementById("live").textContent.startsWith("live")`)
		var bad []string
		if p.Eval(contrast, &bad); len(bad) > 0 {
			t.Errorf("%s: too little contrast: %q", scheme, bad)
		}
		if p.Eval(unnamed, &bad); len(bad) > 0 {
			t.Errorf("%s: controls without a name: %q", scheme, bad)
		}
		if p.Eval(`[...document.querySelectorAll("[id]")].map((e) => e.id).filter((id, i, all) => all.indexOf(id) !== i)`, &bad); len(bad) > 0 {
			t.Errorf("%s: given twice: %q", scheme, bad)
		}
		if *update {
			name := filepath.Join("..", "..", "..", "docs", "images", "page-"+scheme+".png")
			must(t, os.WriteFile(name, small(t, p.Screenshot()), 0o644))
		}
		for _, width := range []int64{1280, 768, 360} {
			p.Size(width, 800)
			p.Wait(fmt.Sprintf("innerWidth === %d && document.documentElement.clientWidth === innerWidth", width))
			var wide int64
			if p.Eval("document.documentElement.scrollWidth", &wide); wide > width {
				var who []string
				p.Eval(`[...document.querySelectorAll("main *, header *, footer *")].filter((e) => e.getBoundingClientRect().right > innerWidth && !e.closest(".scroll")).map((e) => e.outerHTML.slice(0, 80))`, &who)
				t.Errorf("%s: %d pixels wide in a window of %d: %q", scheme, wide, width, who)
			}
		}
	}
	if bad := p.Problems(); bad != nil {
		t.Errorf("the browser complains: %q", bad)
	}
	if hosts := p.Hosts(); len(hosts) != 1 || "http://"+hosts[0] != srv.URL {
		t.Errorf("asked of %q", hosts)
	}
}

// The screenshots are there, and small.
func TestScreenshots(t *testing.T) {
	for _, scheme := range []string{"light", "dark"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "images", "page-"+scheme+".png"))
		must(t, err)
		c, err := png.DecodeConfig(bytes.NewReader(b))
		if must(t, err); c.Width != 1280 || len(b) > 200_000 {
			t.Errorf("%s: %d pixels wide, %d bytes", scheme, c.Width, len(b))
		}
	}
}

// small has a PNG with 256 colours: of those that are much alike the one that there is most of.
func small(t *testing.T, shot []byte) []byte {
	t.Helper()
	in, err := png.Decode(bytes.NewReader(shot))
	must(t, err)
	bounds, counts := in.Bounds(), make(map[color.RGBA]int)
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(in.At(x, y)).(color.RGBA) }
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			counts[at(x, y)]++
		}
	}
	alike := make(map[color.RGBA]color.RGBA)
	for c, n := range counts {
		like := color.RGBA{c.R >> 4, c.G >> 4, c.B >> 4, 0}
		if n > counts[alike[like]] {
			alike[like] = c
		}
	}
	best := slices.SortedFunc(maps.Values(alike), func(a, b color.RGBA) int { return counts[b] - counts[a] })
	var palette color.Palette
	for _, c := range best[:min(256, len(best))] {
		palette = append(palette, c)
	}
	out := image.NewPaletted(bounds, palette)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			out.Set(x, y, at(x, y))
		}
	}
	var b bytes.Buffer
	must(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out))
	return b.Bytes()
}
