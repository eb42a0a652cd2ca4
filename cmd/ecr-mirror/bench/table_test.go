package bench

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// The columns of the table.
const (
	ours  = "ecr-mirror"
	dist  = "docker-registry"
	nginx = "nginx"
)

// figures holds what was measured, by column. NaN is a server that could not do it; what is absent was not measured.
type figures map[string]float64

// row is one line of the table. With against, ours divided by that figure should be at most limit; without, ours itself.
type row struct {
	what, unit string
	got        figures
	against    string
	limit      float64
}

// table collects rows until the end.
type table struct {
	rows []row
}

func (t *table) add(r row) { t.rows = append(t.rows, r) }

func (t *table) print(out io.Writer) {
	if len(t.rows) == 0 {
		return
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nwhat\tunit\t%s\t%s\t%s\tcompared with\tratio\ttarget\t\n", ours, dist, nginx)
	for _, r := range t.rows {
		value, against, ratio := r.got[ours], "", ""
		if r.against != "" {
			against, ratio = r.against, "-"
			if base, ok := r.got[r.against]; ok {
				value /= base
				against, ratio = r.against+" "+number(base), number(value)
			}
		}
		verdict := "met"
		switch base, ok := r.got[r.against]; {
		case r.against != "" && (!ok || math.IsNaN(base)):
			verdict = "unknown"
		case !(value <= r.limit): // NaN is missed too
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t<= %s\t%s\n", r.what, r.unit, r.cell(ours), r.cell(dist), r.cell(nginx), against, ratio, number(r.limit), verdict)
	}
	_ = w.Flush() // standard output
}

func (r row) cell(column string) string {
	v, ok := r.got[column]
	switch {
	case !ok && !installed(column):
		return "not installed"
	case !ok:
		return "-"
	case math.IsNaN(v):
		return "fails"
	}
	return number(v)
}

func number(v float64) string {
	switch a := math.Abs(v); {
	case a == math.Trunc(a) && a < 1e6:
		return fmt.Sprintf("%.0f", v)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
