package clientconfig

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const (
	begin = "# ecr-mirror begin: ecr-mirror client-config wrote this, and --remove takes it out"
	end   = "# ecr-mirror end"
)

// block is TOML that stands between two marks in a file of others' making.
type block struct {
	head string // what a file that does not exist yet starts with
	text string // tables
	top  bool   // before the first table of others: clients ask hosts in the order of the file
}

func (b block) file(path string) File { return File{path, b.add, b.remove} }

func (b block) add(old []byte) ([]byte, error) {
	rest, _, err := cut(string(old))
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(rest) == "" {
		rest = b.head
	}
	i := len(rest)
	if b.top {
		i = firstTable(rest)
	}
	before := rest[:i]
	if before != "" && !strings.HasSuffix(before, "\n") {
		before += "\n"
	}
	s := before + begin + "\n" + b.text + end + "\n" + rest[i:]
	return []byte(s), valid(s)
}

// valid refuses a file that the client would refuse, above all one in which another table has the same name: clients ignore
// such a file as a whole.
func valid(s string) error {
	var v map[string]any
	if err := toml.Unmarshal([]byte(s), &v); err != nil {
		return fmt.Errorf("with the mirror in it the file is not valid, as when it is there already: %w", err)
	}
	return nil
}

func (b block) remove(old []byte) ([]byte, error) {
	rest, had, err := cut(string(old))
	switch {
	case err != nil:
		return nil, err
	case !had:
		return old, nil
	case strings.TrimSpace(rest) == "" || rest == b.head:
		return nil, nil
	}
	return []byte(rest), nil
}

// cut takes the marked block out. A mark that is left is not as we write it: what stands by it may be somebody else's.
func cut(s string) (rest string, had bool, err error) {
	rest = s
	before, after, had := strings.Cut(s, begin+"\n")
	if _, after, ok := strings.Cut(after, end+"\n"); had && ok {
		rest = before + after
	}
	for _, mark := range []string{begin, end} {
		if strings.Contains(rest, mark) {
			return "", false, fmt.Errorf("the mark %q stands alone: the file was edited", mark)
		}
	}
	return rest, had, nil
}

// firstTable returns where the first table header begins, or the end.
func firstTable(s string) int {
	at := 0
	for line := range strings.Lines(s) {
		if strings.HasPrefix(strings.TrimSpace(line), "[") {
			return at
		}
		at += len(line)
	}
	return at
}

// quote is s as a TOML string; what is quoted has been checked to hold nothing to escape but these.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
