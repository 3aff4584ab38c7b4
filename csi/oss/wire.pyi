from csi.oss.speaking import Speak

speak: Speak
