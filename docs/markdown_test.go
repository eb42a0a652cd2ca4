package docs

import (
	"fmt"
	"regexp"
	"strings"
)

// document is one Markdown file.
type document struct {
	path   string // from the top of the repository
	text   string
	blocks []block
	prose  []line // what is in no block
}

type line struct {
	n    int // from 1
	text string
}

// block is a fenced block of code.
type block struct {
	line     int // of its first line of code
	language string
	text     string
	note     string // what the comment before it tells the test: <!-- test: NOTE -->
}

var (
	fenceRE = regexp.MustCompile("^( *)(```+)([^`]*)$")
	noteRE  = regexp.MustCompile(`^ *<!-- test: (.*) -->$`)
)

// parseDocument splits text. A block that does not end and a note without a block are errors.
func parseDocument(path, text string) (document, error) {
	d := document{path: path, text: text}
	var open *block
	var indent, fence, note string
	noted := 0
	for i, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		n := i + 1
		m := fenceRE.FindStringSubmatch(l)
		switch {
		case open != nil && m != nil && len(m[2]) >= len(fence) && m[3] == "":
			d.blocks = append(d.blocks, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(l, indent) + "\n"
		case m != nil:
			indent, fence = m[1], m[2]
			open = &block{line: n + 1, language: strings.TrimSpace(m[3]), note: note}
			note = ""
		case noteRE.MatchString(l):
			if note != "" {
				return d, fmt.Errorf("%s:%d: a note without a block", path, noted)
			}
			note, noted = noteRE.FindStringSubmatch(l)[1], n
		default:
			if note != "" && strings.TrimSpace(l) != "" {
				return d, fmt.Errorf("%s:%d: a note without a block", path, noted)
			}
			d.prose = append(d.prose, line{n, l})
		}
	}
	switch {
	case open != nil:
		return d, fmt.Errorf("%s:%d: the block does not end", path, open.line)
	case note != "":
		return d, fmt.Errorf("%s:%d: a note without a block", path, noted)
	}
	return d, nil
}

var (
	headingRE = regexp.MustCompile(`^#{1,6} +(.*?) *#*$`)
	markupRE  = regexp.MustCompile("[`*]|\\[([^]]*)\\]\\([^)]*\\)")
	droppedRE = regexp.MustCompile(`[^\p{L}\p{N}\p{M}_ -]`)
)

// anchors are the fragments that a link may name: headings as GitHub makes them, and explicit ids.
func (d document) anchors() map[string]bool {
	all := make(map[string]bool)
	for _, l := range d.prose {
		if m := headingRE.FindStringSubmatch(l.text); m != nil {
			slug := droppedRE.ReplaceAllString(strings.ToLower(markupRE.ReplaceAllString(m[1], "$1")), "")
			slug = strings.ReplaceAll(slug, " ", "-")
			for n, unique := 1, slug; ; n++ {
				if !all[unique] {
					all[unique] = true
					break
				}
				unique = fmt.Sprintf("%s-%d", slug, n)
			}
		}
		for _, m := range regexp.MustCompile(`<a (?:id|name)="([^"]+)"`).FindAllStringSubmatch(l.text, -1) {
			all[m[1]] = true
		}
	}
	return all
}

// undefined are references to links that the document does not define.
func (d document) undefined() (all []line) {
	defined := make(map[string]bool)
	for _, l := range d.prose {
		if m := regexp.MustCompile(`^\[([^]]+)\]: `).FindStringSubmatch(l.text); m != nil {
			defined[m[1]] = true
		}
	}
	for _, l := range d.prose {
		for _, m := range regexp.MustCompile(`\]\[([^]]+)\]`).FindAllStringSubmatch(regexp.MustCompile("`[^`]*`").ReplaceAllString(l.text, ""), -1) {
			if !defined[m[1]] {
				all = append(all, line{l.n, m[1]})
			}
		}
	}
	return all
}

var linkRE = regexp.MustCompile(`\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)?)\)|(?:src|srcset|href)="([^"]+)"|^\[[^]]+\]: +(\S+)$`)

// links are the targets of the document's links and images.
func (d document) links() (all []line) {
	for _, l := range d.prose {
		text := regexp.MustCompile("`[^`]*`").ReplaceAllStringFunc(l.text, func(s string) string { return strings.Repeat("x", len(s)) })
		for _, m := range linkRE.FindAllStringSubmatch(text, -1) {
			all = append(all, line{l.n, m[1] + m[2] + m[3]})
		}
	}
	return all
}
