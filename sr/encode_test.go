package sr_test

import (
	"bytes"
	"encoding/binary"
	"strings"

	"chatxray/pipeline"
)

// encode is a minimal writer of Explicit VR Little Endian.
func encode(d pipeline.Dataset) ([]byte, error) {
	var meta pipeline.Dataset
	meta.SetBytes(pipeline.TagFileMetaInformationVersion, "OB", []byte{0, 1})
	meta.SetText(pipeline.TagMediaStorageSOPClassUID, "UI", d.String(pipeline.TagSOPClassUID))
	meta.SetText(pipeline.TagMediaStorageSOPInstanceUID, "UI", d.String(pipeline.TagSOPInstanceUID))
	meta.SetText(pipeline.TagTransferSyntaxUID, "UI", "1.2.840.10008.1.2.1")
	meta.SetText(pipeline.TagImplementationClassUID, "UI", "2.25.1")
	body := elements(meta)
	var out bytes.Buffer
	out.Write(make([]byte, 128))
	out.WriteString("DICM")
	var l pipeline.Dataset
	l.SetInts(pipeline.TagFileMetaInformationGroupLength, "UL", int64(len(body)))
	out.Write(elements(l))
	out.Write(body)
	out.Write(elements(d))
	return out.Bytes(), nil
}

func elements(d pipeline.Dataset) []byte {
	var out bytes.Buffer
	for _, e := range d {
		var v []byte
		switch {
		case e.VR == "SQ":
			for _, it := range e.Items {
				b := elements(it)
				v = binary.LittleEndian.AppendUint16(v, 0xFFFE)
				v = binary.LittleEndian.AppendUint16(v, 0xE000)
				v = binary.LittleEndian.AppendUint32(v, uint32(len(b)))
				v = append(v, b...)
			}
		case e.VR == "UL":
			v = binary.LittleEndian.AppendUint32(v, uint32(e.Ints[0]))
		case e.Bytes != nil:
			v = e.Bytes
		default:
			v = []byte(strings.Join(e.Text, `\`))
		}
		if len(v)%2 == 1 {
			if e.VR == "UI" {
				v = append(v, 0)
			} else {
				v = append(v, ' ')
			}
		}
		binary.Write(&out, binary.LittleEndian, e.Tag.Group())
		binary.Write(&out, binary.LittleEndian, e.Tag.Element())
		out.WriteString(e.VR)
		switch e.VR {
		case "SQ", "UT", "OB", "UN", "UC", "UR":
			out.Write([]byte{0, 0})
			binary.Write(&out, binary.LittleEndian, uint32(len(v)))
		default:
			binary.Write(&out, binary.LittleEndian, uint16(len(v)))
		}
		out.Write(v)
	}
	return out.Bytes()
}
