package dicom

import (
	"fmt"
	"strings"
	"testing"

	"chatxray/pipeline"
)

// drawn shows an image of bright pixels through a shutter: # is seen.
func drawn(t *testing.T, columns, rows int, photometric string, h pipeline.Dataset) (string, *pipeline.Image) {
	t.Helper()
	px := frame(columns, make([]uint16, columns*rows)...)
	for i := range px.Data {
		px.Data[i] = 0x7F // 0x7F7F: neither end of the gray scale
	}
	px.Photometric = photometric
	m := developed(t, px, h)
	var b strings.Builder
	for i, v := range seen(m) {
		if i%columns == 0 && i > 0 {
			b.WriteByte('\n')
		}
		switch {
		case v == 0:
			b.WriteByte('.')
		case v > 0.4 && v < 0.6:
			b.WriteByte('#')
		default:
			fmt.Fprintf(&b, "?%v", v)
		}
	}
	return b.String(), m
}

func TestShutter(t *testing.T) {
	exact := windowed("32767", "65534", "LINEAR_EXACT")
	rectangle := []pipeline.Element{
		text(pipeline.TagShutterLeftVerticalEdge, "3"), text(pipeline.TagShutterRightVerticalEdge, "6"),
		text(pipeline.TagShutterUpperHorizontalEdge, "2"), text(pipeline.TagShutterLowerHorizontalEdge, "4"),
	}
	circle := []pipeline.Element{text(pipeline.TagCenterOfCircularShutter, "3", "4"), text(pipeline.TagRadiusOfCircularShutter, "2")}
	triangle := []pipeline.Element{text(pipeline.TagVerticesOfThePolygonalShutter, "1", "1", "5", "1", "5", "8")}
	all := strings.TrimSuffix(strings.Repeat("########\n", 5), "\n")
	for _, c := range []struct {
		name string
		set  []pipeline.Element
		want string
	}{
		{"none", nil, all},
		{"rectangle", append(rectangle, text(pipeline.TagShutterShape, "RECTANGULAR")), "........\n..####..\n..####..\n..####..\n........"},
		{"circle", append(circle, text(pipeline.TagShutterShape, "CIRCULAR")), "...#....\n..###...\n.#####..\n..###...\n...#...."},
		{"triangle", append(triangle, text(pipeline.TagShutterShape, "POLYGONAL")), "#.......\n##......\n####....\n######..\n........"},
		{"rectangle and circle", append(append(rectangle, circle...), text(pipeline.TagShutterShape, "RECTANGULAR", "CIRCULAR")),
			"........\n..###...\n..####..\n..###...\n........"},
		{"circle and triangle", append(append(triangle, circle...), text(pipeline.TagShutterShape, "CIRCULAR", "POLYGONAL")),
			"........\n........\n.###....\n..###...\n........"},
		{"shape without edges", []pipeline.Element{text(pipeline.TagShutterShape, "RECTANGULAR")}, all},
		{"beyond the image", []pipeline.Element{text(pipeline.TagShutterShape, "CIRCULAR"),
			text(pipeline.TagCenterOfCircularShutter, "500", "500"), text(pipeline.TagRadiusOfCircularShutter, "2")}, all},
		{"a polygon of two corners", []pipeline.Element{text(pipeline.TagShutterShape, "POLYGONAL"), text(pipeline.TagVerticesOfThePolygonalShutter, "1", "1", "5", "5")}, all},
		{"no numbers", []pipeline.Element{text(pipeline.TagShutterShape, "CIRCULAR"),
			text(pipeline.TagCenterOfCircularShutter, "NaN", "Inf"), text(pipeline.TagRadiusOfCircularShutter, "2")}, all},
	} {
		for _, photometric := range []string{"MONOCHROME2", "MONOCHROME1"} {
			if got, _ := drawn(t, 8, 5, photometric, header(append(c.set, exact...)...)); got != c.want {
				t.Errorf("%s, %s:\n%s\nwant\n%s", c.name, photometric, got, c.want)
			}
		}
	}
	// a sigmoid is nowhere 0: a word that no pixel uses becomes black
	set := append(append(circle, text(pipeline.TagShutterShape, "CIRCULAR")), windowed("32639", "60000", "SIGMOID")...)
	got, m := drawn(t, 8, 5, "MONOCHROME2", header(set...))
	if want := "...#....\n..###...\n.#####..\n..###...\n...#...."; got != want {
		t.Errorf("through a sigmoid:\n%s\nwant\n%s", got, want)
	}
	if m.Top != 0 || m.Bottom != 5 || m.Left != 1 || m.Right != 6 {
		t.Errorf("the circle's box is rows %d to %d, columns %d to %d", m.Top, m.Bottom, m.Left, m.Right)
	}
}

func TestShutterLeavesTheFileAlone(t *testing.T) {
	px := frame(4, make([]uint16, 16)...)
	for i := range px.Data {
		px.Data[i] = 0x7F
	}
	developed(t, px, header(append(windowed("32767", "65534"), text(pipeline.TagShutterShape, "CIRCULAR"),
		text(pipeline.TagCenterOfCircularShutter, "2", "2"), text(pipeline.TagRadiusOfCircularShutter, "1"))...))
	for _, b := range px.Data {
		if b != 0x7F {
			t.Fatal("the mask was written into the file's bytes")
		}
	}
}
